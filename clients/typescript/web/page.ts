// A page that shows a list as it changes, over grpc-web:
//     index.html?server=http://127.0.0.1:50051&list=lists/home
// Several replicas are separated by commas. The service must be set to allow
// the page's origin: --cors-allow-origins http://127.0.0.1:8080

import { connect, type Todo, Todo_State, TodoError } from "tidemark-todos/web";

const parameters = new URLSearchParams(location.search);
const list = parameters.get("list") ?? "lists/home";
const client = connect(parameters.get("server") ?? "http://127.0.0.1:50051");

function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${id}`);
  return found;
}

const rows = element("todos", HTMLUListElement);
const title = element("title", HTMLInputElement);
const status = element("status", HTMLOutputElement);

/** Says what happens, to people and to the console. */
function say(line: string): void {
  status.value = line;
  console.log(line);
  draw();
}

const mirror = client.mirror(list, {
  onChange: (name, todo) => say(todo ? `put: ${name} ${todo.title}` : `gone: ${name}`),
  onReady: () => say("following"),
  onStale: (error) => say(error ? `lost: ${describe(error)}` : "reset"),
});

function describe(error: TodoError): string {
  return `${error.codeName} ERROR_REASON_${error.reason || "UNSPECIFIED"}`;
}

function draw(): void {
  rows.replaceChildren(...mirror.todos.map(row));
}

function row(todo: Todo): HTMLLIElement {
  const item = document.createElement("li");
  const label = document.createElement("label");
  const box = document.createElement("input");
  const text = document.createElement("span");
  item.dataset["name"] = todo.name;
  item.className = todo.state === Todo_State.COMPLETED ? "done" : "";
  box.type = "checkbox";
  box.checked = todo.state === Todo_State.COMPLETED;
  box.addEventListener("change", () => void complete(todo, box.checked));
  text.textContent = todo.title;
  label.append(box, " ", text);
  item.append(label);
  return item;
}

/** With the etag of what the reader saw: if it changed meanwhile, it is not overwritten. */
async function complete(todo: Todo, done: boolean): Promise<void> {
  const state = done ? Todo_State.COMPLETED : Todo_State.ACTIVE;
  try {
    await client.updateTodo({ name: todo.name, etag: todo.etag, state });
    say(`wrote: ${todo.name}`);
  } catch (error) {
    refuse(error);
  }
}

function refuse(error: unknown): void {
  const failed = TodoError.from(error);
  say(`refused: ${describe(failed)} ${failed.metadata["name"] ?? ""}`.trim());
}

element("add", HTMLFormElement).addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const todo = await client.createTodo(list, { title: title.value });
    title.value = "";
    say(`wrote: ${todo.name}`);
  } catch (error) {
    refuse(error);
  }
});

mirror.run(new AbortController().signal).catch(refuse);
