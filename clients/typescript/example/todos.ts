// An example client of the todo service: each command shows a part of the library.

import { type Client, connect, TodoError } from "tidemark-todos/node";
import { tour } from "./tour.js";

const usage = `usage:
  todos get NAME ADDRESS...      reads one todo
  todos tour LIST ADDRESS...     shows each call once
  todos mirror LIST ADDRESS...   follows a list until the end of its input`;

async function get(client: Client, name: string): Promise<void> {
  console.log((await client.getTodo(name)).todo?.title);
}

async function mirror(client: Client, parent: string): Promise<void> {
  const end = new AbortController();
  process.stdin.on("end", () => end.abort()).resume();
  const followed = client.mirror(parent, {
    onChange: (name, todo) => console.log(todo ? `put: ${name} ${todo.title}` : `gone: ${name}`),
    onReady: () => console.log("following"),
    onStale: (error) => console.log(error ? `lost: ${describe(error)}` : "reset"),
  });
  await followed.run(end.signal);
  for (const todo of followed.todos) console.log(`has: ${todo.name} ${todo.title}`);
}

/** Chooses by the code and the reason. The message is for people. */
function describe(error: TodoError): string {
  return `${error.codeName} ERROR_REASON_${error.reason || "UNSPECIFIED"}`;
}

const commands: Record<string, (client: Client, what: string, addresses: string[]) => Promise<void>> = { get, tour, mirror };
const [command = "", what = "", ...addresses] = process.argv.slice(2);
const run = commands[command];
if (!run || addresses.length === 0) {
  console.error(usage);
  process.exit(2);
}
const client = connect(addresses);
try {
  await run(client, what, addresses);
} catch (error) {
  if (!(error instanceof TodoError)) throw error;
  console.error(`todos: ${describe(error)}: ${error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
// The input may still be open.
process.stdin.destroy();
