// Opens the page in a headless Chromium, does what it is told line by line, and
// prints what the page says:
//     node dist/web/test.js PORT LIST SERVER...
//     add TITLE         fills the form
//     complete NAME     clicks the box of a todo
// At the end of its input it prints what the page shows.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [port, list, ...servers] = process.argv.slice(2);
const executablePath = process.env["TIDEMARK_CHROMIUM"];
if (!port || !list || servers.length === 0 || !executablePath) {
  console.error("usage: TIDEMARK_CHROMIUM=/usr/bin/chromium node dist/web/test.js PORT LIST SERVER...");
  process.exit(2);
}

const types: Record<string, string> = { html: "text/html", js: "text/javascript" };
const pages = createServer((request, response) => {
  const file = new URL(request.url ?? "/", "http://page").pathname.slice(1);
  const type = types[file.split(".").at(-1) ?? ""];
  if (!type || file.includes("/")) return response.writeHead(404).end();
  readFile(new URL(`../page/${file}`, import.meta.url)).then(
    (content) => response.writeHead(200, { "content-type": type }).end(content),
    () => response.writeHead(404).end(),
  );
});
await new Promise<void>((done) => pages.listen(Number(port), "127.0.0.1", done));

const browser = await chromium.launch({
  executablePath,
  chromiumSandbox: process.getuid?.() !== 0,
  // Nothing may ask the network for what is not the page's business.
  args: [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-proxy-server",
  ],
});
const page = await browser.newPage();
// Chromium's own messages, of a refused connection say, are errors.
page.on("console", (message) => {
  if (message.type() === "log") console.log(message.text());
  else console.error(message.text());
});
page.on("pageerror", (error) => console.log(`page error: ${error}`));
await page.goto(`http://127.0.0.1:${port}/index.html?list=${list}&server=${servers.map((s) => `http://${s}`).join(",")}`);

for await (const line of createInterface({ input: process.stdin })) {
  const [command, rest] = [line.slice(0, line.indexOf(" ")), line.slice(line.indexOf(" ") + 1)];
  if (command === "add") {
    await page.fill("#title", rest);
    await page.click("#add button");
  } else if (command === "complete") {
    await page.click(`li[data-name="${rest}"] input`);
  } else {
    console.log(`no such command: ${line}`);
  }
}
for (const item of await page.locator("#todos li").all()) {
  const done = (await item.getAttribute("class")) === "done" ? " (done)" : "";
  console.log(`has: ${await item.getAttribute("data-name")} ${(await item.innerText()).trim()}${done}`);
}
await browser.close();
pages.close();
pages.closeAllConnections();
