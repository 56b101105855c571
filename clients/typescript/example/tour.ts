// Each call once. What it creates it deletes at its end.

import { durationMs } from "@bufbuild/protobuf/wkt";
import { type Client, connect, fullyConsistent, pb, TodoError, Todo_Priority } from "tidemark-todos/node";

export async function tour(client: Client, parent: string, addresses: readonly string[]): Promise<void> {
  const created: string[] = [];
  try {
    await writeAndRead(client, parent, created);
    await listInPages(client, parent);
    await readManyTimes(client, parent);
    await errorsByReason(client, parent, created);
    await tooShortADeadline(client, parent);
    await onAnotherReplica(parent, addresses);
  } finally {
    for (const name of created) await client.deleteTodo(name);
  }
}

async function writeAndRead(client: Client, parent: string, created: string[]): Promise<void> {
  const create = async (title: string, priority: Todo_Priority): Promise<string> => {
    const { name } = await client.createTodo(parent, { title, priority, labels: ["tour"] });
    created.push(name);
    return name;
  };
  await create("Buy milk", Todo_Priority.NORMAL);
  await create("Read a book", Todo_Priority.HIGH);
  const last = await create("Water the plants", Todo_Priority.URGENT);
  // The session carries the token of the write: this read cannot miss it.
  const { todo, read } = await client.getTodo(last);
  if (!read?.stalenessBound) throw new Error("an answer that does not state how fresh it is");
  const source = pb.SourceSchema.value[read.source]?.name;
  console.log(`get: ${todo?.title}, from ${source}, misses nothing older than ${durationMs(read.stalenessBound)} ms`);
}

async function listInPages(client: Client, parent: string): Promise<void> {
  const found = client.listTodos(parent, {
    pageSize: 2,
    filter: 'state = ACTIVE AND labels:"tour"',
    orderBy: "priority desc",
    consistency: fullyConsistent(),
  });
  for await (const todo of found) {
    console.log(`list: ${pb.Todo_PrioritySchema.value[todo.priority]?.name} ${todo.title}`);
  }
}

/** Goes round all replicas. */
async function readManyTimes(client: Client, parent: string): Promise<void> {
  for (let n = 0; n < 20; n++) {
    for await (const todo of client.listTodos(parent)) void todo;
  }
  console.log("read: 20 times");
}

/** Does what a program would do: chooses by the reason, not by the text. */
async function errorsByReason(client: Client, parent: string, created: string[]): Promise<void> {
  const { name, etag } = await client.createTodo(parent, { title: "Call home" });
  created.push(name);
  const todo = { name, title: "Call home at six", etag };
  await client.updateTodo(todo);
  // The etag is that of before the update.
  await refused(client.updateTodo(todo), "ETAG_MISMATCH");
  // The session has the refusal's token: this read is not older than the refusal.
  console.log(`refused: ERROR_REASON_ETAG_MISMATCH, it is now: ${(await client.getTodo(todo.name)).todo?.title}`);

  const none = await refused(client.getTodo(`${parent}/todos/none`), "TODO_NOT_FOUND");
  console.log(`refused: ERROR_REASON_TODO_NOT_FOUND, says ${none.metadata["source"]}`);

  const filter = await refused(client.listTodos(parent, { filter: "colour = RED" }).next(), "FILTER_INVALID");
  console.log(`refused: ERROR_REASON_FILTER_INVALID at character ${filter.metadata["position"]}`);
}

/** An error that has this reason; any other is thrown again. */
async function refused(call: Promise<unknown>, expected: string): Promise<TodoError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof TodoError && error.reason === expected) return error;
    throw error;
  }
  throw new Error(`this should have been refused: ${expected}`);
}

async function tooShortADeadline(client: Client, parent: string): Promise<void> {
  try {
    await client.getTodo(`${parent}/todos/none`, { consistency: fullyConsistent(), timeoutMs: 1 });
  } catch (error) {
    console.log(`too short a deadline: ${TodoError.from(error).codeName}`);
  }
}

/**
 * Writes at one replica and reads at the next, if there are two. The token makes the second one wait
 * until it has seen the write.
 */
async function onAnotherReplica(parent: string, addresses: readonly string[]): Promise<void> {
  const first = connect(addresses.slice(0, 1));
  const written = await first.createTodo(parent, { title: "Written at one replica" });
  const second = connect(addresses.slice(1, 2).concat(addresses).slice(0, 1), { token: first.token });
  console.log(`at another replica: ${(await second.getTodo(written.name)).todo?.title}`);
  await first.deleteTodo(written.name);
  first.close();
  second.close();
}
