// Drives pages in a headless Chromium:
//     TIDEMARK_CHROMIUM=/usr/bin/chromium node tests/ui/drive.mjs
// Each line of its input is a command in JSON, each line of its output the answer, or an error.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const { chromium } = createRequire(`${root}clients/typescript/package.json`)("playwright-core");
/** Two cores run everything. */
const PATIENCE_MS = 30_000;

const browser = await chromium.launch({
  executablePath: process.env["TIDEMARK_CHROMIUM"],
  chromiumSandbox: process.getuid?.() !== 0,
  args: [
    "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-proxy-server",
  ],
});
const pages = new Map();
const errors = [];
const strangers = [];
const credentials = new Set();

const row = (page, title) => page.locator("#todos li", { has: page.locator("label span", { hasText: title }) });

/** Resolves with the time when the text of a title is on the page. */
const seen = (page, title) => page.evaluate((title) => new Promise((done) => {
  const look = () => {
    const found = [...document.querySelectorAll("#todos li label span")].some((span) => span.textContent === title);
    if (found) done(Date.now());
    return found;
  };
  const observer = new MutationObserver(() => look() && observer.disconnect());
  if (!look()) observer.observe(document.body, { subtree: true, childList: true, characterData: true });
}), title);

const commands = {
  async open({ page: name, url, colours = "light" }) {
    const context = await browser.newContext({ viewport: { width: 1120, height: 900 }, colorScheme: colours });
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    page.on("pageerror", (error) => errors.push(`${name}: ${error}`));
    page.on("console", (message) => {
      // Chromium reports each lost connection as an error, which is no fault of the page.
      if (message.type() === "error" && !/Failed to load resource/.test(message.text())) errors.push(`${name}: ${message.text()}`);
    });
    page.on("request", (request) => {
      if (new URL(request.url()).origin !== new URL(url).origin) strangers.push(request.url());
      const credential = request.headers()["authorization"];
      if (credential) credentials.add(credential);
    });
    const response = await page.goto(url);
    pages.set(name, page);
    return { status: response.status(), policy: response.headers()["content-security-policy"] };
  },
  async live({ page }) {
    await page.locator("#connection", { hasText: /^live$/ }).waitFor();
  },
  async add({ page, title }) {
    await page.getByLabel("New todo").fill(title);
    await page.keyboard.press("Enter");
  },
  async has({ page, title, done = false }) {
    await row(page, title).and(page.locator(done ? ".done" : ":not(.done)")).waitFor();
  },
  async gone({ page, title }) {
    await row(page, title).waitFor({ state: "detached" });
  },
  async complete({ page, title }) {
    await row(page, title).getByRole("checkbox").click();
  },
  /** By keyboard alone. */
  async edit({ page, title, to }) {
    await page.getByRole("button", { name: `Edit ${title}` }).focus();
    await page.keyboard.press("Enter");
    await page.keyboard.type(to);
    await page.keyboard.press("Enter");
    await page.getByRole("button", { name: `Edit ${to}` }).and(page.locator(":focus")).waitFor();
  },
  async erase({ page, title }) {
    await page.getByRole("button", { name: `Delete ${title}` }).click();
  },
  async level({ page, level }) {
    await page.getByLabel("Consistency level").selectOption(level);
  },
  /** Waits until the text of an element matches. */
  async text({ page, id, matches }) {
    const place = page.locator(`#${id}`, { hasText: new RegExp(matches) });
    await place.waitFor();
    return place.textContent();
  },
  async freshness({ page, title }) {
    const place = row(page, title).locator(".freshness", { hasText: /^(near|shared|origin), at most \d+ ms$/ });
    await place.waitFor();
    return place.textContent();
  },
  /** Adds a todo on one page; how many ms later it is on the other. */
  async race({ page, other, title }) {
    const there = seen(pages.get(other), title);
    const began = await page.evaluate((title) => {
      document.getElementById("title").value = title;
      document.getElementById("add").requestSubmit();
      return Date.now();
    }, title);
    return await there - began;
  },
  async key({ page, key }) {
    await page.getByLabel("API key or token").fill(key);
    await page.keyboard.press("Enter");
    await page.locator("#connection", { hasText: /^live$/ }).waitFor();
    return page.evaluate(() => localStorage.length + sessionStorage.length + document.cookie.length);
  },
  /** What has no name for a screen reader. */
  async nameless({ page }) {
    return page.evaluate(() => [...document.querySelectorAll("input, select, button, meter")]
      .filter((control) => !control.labels?.length && !control.getAttribute("aria-label") && !control.textContent.trim())
      .map((control) => control.outerHTML)
      .filter((html) => !html.startsWith("<meter")));
  },
  async screenshot({ page, file }) {
    await page.screenshot({ path: file });
  },
  async report() {
    return { errors, strangers, credentials: [...credentials] };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: command, ...rest } = JSON.parse(line);
  try {
    const page = command === "open" ? rest.page : pages.get(rest.page);
    const answer = await commands[command]({ ...rest, page });
    console.log(JSON.stringify({ answer: answer ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}
await browser.close();
