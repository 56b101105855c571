// The page that the service shows at `/`: a list as it changes, and what the caches do. It calls
// the service by grpc-web from its own origin. `ui/build` bundles it.

import {
  cachedOnly, type Client, connect, type Consistency, fullyConsistent, maxStaleness, type pb, type Todo, Todo_State,
  TodoError,
} from "../clients/typescript/src/web.js";

/** How often the list is read, and the state of the replica. Hidden pages do neither. */
const READ_INTERVAL_MS = 1000;
const STATE_INTERVAL_MS = 2000;
/** Todos of the list that are read and shown. */
const MAX_SHOWN = 200;
const SOURCES = ["unknown", "near", "shared", "origin"];

function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${id}`);
  return found;
}

function show(id: string, text: string): void {
  const place = element(id, HTMLElement);
  if (place.textContent !== text) place.textContent = text;
}

const rows = element("todos", HTMLUListElement);
const connection = element("connection", HTMLElement);
const message = element("message", HTMLElement);

/** Only in memory: it is gone with the page. */
let key = "";
let parent = "";
let client: Client;
let stop = new AbortController();
let todos = new Map<string, Todo>();
/** Source and bound of the last answer that had the todo, or did not. */
const freshness = new Map<string, string>();

// What people are told. The live regions read it out.

function state(kind: "ok" | "wait" | "error", text: string): void {
  connection.className = kind;
  if (connection.textContent !== text) connection.textContent = text;
}

function say(text: string, failed = false): void {
  message.className = failed ? "error" : "";
  message.textContent = text;
}

function describe(error: unknown): string {
  const failed = TodoError.from(error);
  return `${failed.reason || failed.codeName}: ${failed.message}`;
}

async function attempt(what: string, work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    say(what);
    return true;
  } catch (error) {
    say(describe(error), true);
    return false;
  }
}

// The list.

/** Stops following the list before, and follows this one. */
function open(list: string): void {
  stop.abort();
  stop = new AbortController();
  parent = list.startsWith("lists/") ? list : `lists/${list}`;
  client = connect(location.origin, key ? { bearer: key } : {});
  todos = new Map();
  freshness.clear();
  rows.replaceChildren();
  show("opened", parent.slice("lists/".length));
  say("");
  state("wait", "connecting");
  const signal = stop.signal;
  const mirror = client.mirror(parent, {
    onChange: (name, todo) => {
      if (signal.aborted) return;
      if (todo) todos.set(name, todo);
      else todos.delete(name);
      draw();
    },
    onReady: () => state("ok", "live"),
    onStale: (error) => state("wait", error ? `connecting again: ${error.message || error.codeName}` : "reading the list again"),
  });
  mirror.run(signal).catch((error: unknown) => {
    if (!signal.aborted) state("error", describe(error));
  });
  void read();
  void readState();
  void readLists();
}

/** Brings the rows up to date in place: the focus stays where it is. */
function draw(): void {
  const shown = [...todos.values()].sort((one, other) => (one.name < other.name ? -1 : 1)).slice(0, MAX_SHOWN);
  const names = new Set(shown.map((todo) => todo.name));
  for (const row of [...rows.children]) {
    if (row instanceof HTMLLIElement && !names.has(row.dataset["name"] ?? "")) remove(row);
  }
  let before: Element | null = rows.firstElementChild;
  for (const todo of shown) {
    let row = find(todo.name);
    if (!row) row = newRow(todo.name);
    fill(row, todo);
    if (row === before) before = before.nextElementSibling;
    else rows.insertBefore(row, before);
  }
  element("empty", HTMLElement).hidden = shown.length > 0;
}

function find(name: string): HTMLLIElement | undefined {
  for (const row of rows.children) {
    if (row instanceof HTMLLIElement && row.dataset["name"] === name) return row;
  }
  return undefined;
}

/** The focus goes to the next row, or to the field for a new todo. */
function remove(row: HTMLLIElement): void {
  const next = row.nextElementSibling ?? row.previousElementSibling;
  const focused = row.contains(document.activeElement);
  row.remove();
  if (focused) (next?.querySelector<HTMLElement>("input, button") ?? element("title", HTMLInputElement)).focus();
}

function part<K extends keyof HTMLElementTagNameMap>(tag: K, set: Partial<HTMLElementTagNameMap[K]> = {}): HTMLElementTagNameMap[K] {
  return Object.assign(document.createElement(tag), set);
}

function newRow(name: string): HTMLLIElement {
  const row = part("li");
  row.dataset["name"] = name;
  const box = part("input", { type: "checkbox" });
  const label = part("label");
  label.append(box, " ", part("span"));
  const edit = part("button", { type: "button", className: "edit", textContent: "Edit" });
  const erase = part("button", { type: "button", className: "delete", textContent: "Delete" });
  row.append(label, part("span", { className: "freshness" }), edit, erase);
  box.addEventListener("change", () => {
    const [todo, state] = [todos.get(name), box.checked ? Todo_State.COMPLETED : Todo_State.ACTIVE];
    if (todo) void write(todo, { state }, box.checked ? "completed" : "not completed");
  });
  edit.addEventListener("click", () => startEdit(row, name));
  erase.addEventListener("click", async () => {
    const todo = todos.get(name);
    if (todo) await attempt(`deleted "${todo.title}"`, () => client.deleteTodo(name, { etag: todo.etag, allowMissing: true }));
  });
  return row;
}

function fill(row: HTMLLIElement, todo: Todo): void {
  const done = todo.state === Todo_State.COMPLETED;
  const [box, text, fresh] = ["input[type=checkbox]", "label span", ".freshness"].map((part) => row.querySelector(part));
  row.classList.toggle("done", done);
  if (box instanceof HTMLInputElement) box.checked = done;
  if (text && text.textContent !== todo.title) text.textContent = todo.title;
  const read = freshness.get(todo.name) ?? "by the watch";
  if (fresh && fresh.textContent !== read) fresh.textContent = read;
  for (const button of row.querySelectorAll(".edit, .delete")) {
    button.setAttribute("aria-label", `${button.textContent} ${todo.title}`);
  }
}

/** With the etag of what the reader saw: if it changed meanwhile, it is not overwritten. */
async function write(todo: Todo, fields: { state?: Todo_State; title?: string }, what: string): Promise<boolean> {
  const done = await attempt(`${what}: "${fields.title ?? todo.title}"`, () =>
    client.updateTodo({ name: todo.name, etag: todo.etag, ...fields }));
  // A box that was refused shows what is.
  draw();
  return done;
}

/** A field in place of the title. Enter writes, Escape leaves. */
function startEdit(row: HTMLLIElement, name: string): void {
  const [todo, label] = [todos.get(name), row.querySelector("label")];
  if (!todo || !label || row.querySelector("form")) return;
  const form = part("form");
  const field = part("input", { value: todo.title, required: true, maxLength: 1024 });
  field.setAttribute("aria-label", `Title of ${todo.title}`);
  form.append(field, part("button", { textContent: "Save" }));
  label.hidden = true;
  label.after(form);
  const end = () => {
    form.remove();
    label.hidden = false;
    row.querySelector<HTMLElement>(".edit")?.focus();
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await write(todo, { title: field.value }, "changed")) end();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") end();
  });
  field.select();
  field.focus();
}

// Reads, and how fresh their answers are.

/** Session tokens are the library's; a level that is chosen replaces them. */
function consistency(): Consistency | undefined {
  switch (element("level", HTMLSelectElement).value) {
    case "maxStaleness": return maxStaleness(1000);
    case "fullyConsistent": return fullyConsistent();
    case "cachedOnly": return cachedOnly();
    case "minimizeLatency": return { requirement: { case: "minimizeLatency", value: true } };
    default: return undefined;
  }
}

function milliseconds(read: pb.ReadInfo | undefined): number {
  return Number(read?.stalenessBound?.seconds ?? 0) * 1000 + (read?.stalenessBound?.nanos ?? 0) / 1e6;
}

function age(read: pb.ReadInfo | undefined): string {
  return `${milliseconds(read).toFixed(0)} ms${read?.stale ? ", stale" : ""}`;
}

let reading = false;

/** Reads the list at the chosen level, beside the watch. */
async function read(): Promise<void> {
  if (reading || !parent) return;
  reading = true;
  const [of, began] = [parent, performance.now()];
  try {
    const page = await client.stub.listTodos({ parent, pageSize: MAX_SHOWN, consistency: consistency() });
    if (of !== parent) return;
    const source = SOURCES[page.read?.source ?? 0] ?? "unknown";
    show("source", source);
    show("bound", age(page.read));
    for (const todo of page.todos) freshness.set(todo.name, `${source}, at most ${age(page.read)}`);
  } catch (error) {
    if (of !== parent) return;
    show("source", TodoError.from(error).reason || "no answer");
    show("bound", "-");
  } finally {
    reading = false;
  }
  show("took", `${(performance.now() - began).toFixed(1)} ms`);
  draw();
}

// This replica.

interface State {
  ready: boolean;
  reads: Record<"near" | "shared" | "origin", number>;
  frontierLagSeconds: number;
  watchers: number;
  breaker: "none" | "closed" | "open";
  nearEntries: number;
}

async function readState(): Promise<void> {
  try {
    const headers = key ? { authorization: `Bearer ${key}` } : undefined;
    const response = await fetch("/ui/status", { headers });
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    const found = await response.json() as State;
    show("ready", found.ready ? "yes" : "no");
    show("lag", `${(found.frontierLagSeconds * 1000).toFixed(0)} ms`);
    show("watchers", String(found.watchers));
    show("breaker", found.breaker === "none" ? "no Redis" : found.breaker === "open" ? "open: Redis is not used" : "closed");
    show("entries", String(found.nearEntries));
    const all = Object.values(found.reads).reduce((sum, count) => sum + count, 0);
    for (const tier of ["near", "shared", "origin"] as const) {
      const share = all ? found.reads[tier] / all : 0;
      element(tier, HTMLMeterElement).value = share;
      show(`${tier}-text`, `${(share * 100).toFixed(1)} %`);
    }
  } catch {
    show("ready", "no answer");
  }
}

/** Names of lists to choose from. */
async function readLists(): Promise<void> {
  try {
    const page = await client.stub.listTodoLists({ pageSize: 1000 });
    const options = page.todoLists.map((list) =>
      part("option", { value: list.name.slice("lists/".length), label: list.title }));
    element("lists", HTMLDataListElement).replaceChildren(...options);
  } catch {
    // A name can be typed all the same.
  }
}

function everySoOften(interval: number, work: () => Promise<void>): void {
  setInterval(() => {
    if (document.visibilityState === "visible") void work();
  }, interval);
}

function onSubmit(id: string, work: () => void): void {
  element(id, HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    work();
  });
}

onSubmit("choose", () => open(element("list", HTMLInputElement).value.trim()));
onSubmit("access", () => {
  key = element("key", HTMLInputElement).value.trim();
  open(parent);
});
onSubmit("add", async () => {
  const title = element("title", HTMLInputElement);
  if (await attempt(`added "${title.value}"`, () => client.createTodo(parent, { title: title.value }))) title.value = "";
});
element("read", HTMLButtonElement).addEventListener("click", () => void read());
element("level", HTMLSelectElement).addEventListener("change", () => void read());
everySoOften(READ_INTERVAL_MS, async () => {
  if (element("repeat", HTMLInputElement).checked) await read();
});
everySoOften(STATE_INTERVAL_MS, readState);
open(location.hash.slice(1) || element("list", HTMLInputElement).value);
