// Each call once, with deadlines, in a list of its own.

import { durationMs } from "@bufbuild/protobuf/wkt";
import {
  ErrorReason, SourceSchema, Todo_Priority, Todo_PrioritySchema,
} from "../gen/todo/v1/todo_pb.js";
import { codeName, why } from "./errors.js";
import { connect } from "./node.js";
import { CALL_TIMEOUT_MS } from "./replicas.js";
import { create, type Todos, update } from "./write.js";

const soon = { timeoutMs: CALL_TIMEOUT_MS };

const atLeastAsFresh = (token: string) => ({ requirement: { case: "atLeastAsFresh", value: token } as const });
const fullyConsistent = { requirement: { case: "fullyConsistent", value: true } as const };

export async function tour(parent: string, addresses: readonly string[]): Promise<void> {
  const client = connect(addresses);
  await writeAndRead(client, parent);
  await listInPages(client, parent);
  await readManyTimes(client, parent);
  await errorsByReason(client, parent);
  await tooShortADeadline(client, parent);
  await onAnotherReplica(parent, addresses);
}

async function writeAndRead(client: Todos, parent: string): Promise<void> {
  const labels = ["tour"];
  await create(client, parent, { title: "Buy milk", priority: Todo_Priority.NORMAL, labels });
  await create(client, parent, { title: "Read a book", priority: Todo_Priority.HIGH, labels });
  const last = await create(client, parent, { title: "Water the plants", priority: Todo_Priority.URGENT, labels });
  const request = { name: last.todo?.name, consistency: atLeastAsFresh(last.token) };
  const { todo, read } = await client.getTodo(request, soon);
  if (!read?.stalenessBound) throw new Error("an answer that does not say how fresh it is");
  const source = SourceSchema.value[read.source]?.name;
  console.log(`get: ${todo?.title}, from ${source}, misses nothing older than ${durationMs(read.stalenessBound)} ms`);
}

async function listInPages(client: Todos, parent: string): Promise<void> {
  for (let pageToken: string | undefined; pageToken !== "";) {
    const page = await client.listTodos({
      parent,
      pageSize: 2,
      pageToken,
      filter: 'state = ACTIVE AND labels:"tour"',
      orderBy: "priority desc",
      consistency: fullyConsistent,
    }, soon);
    for (const todo of page.todos) {
      console.log(`list: ${Todo_PrioritySchema.value[todo.priority]?.name} ${todo.title}`);
    }
    pageToken = page.nextPageToken;
  }
}

async function readManyTimes(client: Todos, parent: string): Promise<void> {
  for (let n = 0; n < 20; n++) await client.listTodos({ parent }, soon);
  console.log("read: 20 times");
}

/** Does what a program would do: chooses by the reason, not by the text. */
async function errorsByReason(client: Todos, parent: string): Promise<void> {
  const created = (await create(client, parent, { title: "Call home" })).todo;
  if (!created) throw new Error("an answer without its todo");
  const todo = { name: created.name, title: "Call home at six", etag: created.etag };
  await update(client, todo);
  // The etag is that of before the update.
  const changed = await refused(update(client, todo), ErrorReason.ETAG_MISMATCH);
  // With the refusal's token, the next read is not older than the refusal.
  const consistency = atLeastAsFresh(changed["token"] ?? "");
  const now = (await client.getTodo({ name: todo.name, consistency }, soon)).todo;
  console.log(`refused: ERROR_REASON_ETAG_MISMATCH, it is now: ${now?.title}`);

  const none = await refused(client.getTodo({ name: `${parent}/todos/none` }, soon), ErrorReason.TODO_NOT_FOUND);
  console.log(`refused: ERROR_REASON_TODO_NOT_FOUND, says ${none["source"]}`);

  const filter = await refused(client.listTodos({ parent, filter: "colour = RED" }, soon), ErrorReason.FILTER_INVALID);
  console.log(`refused: ERROR_REASON_FILTER_INVALID at character ${filter["position"]}`);
}

/** The values of an error that has this reason; any other is thrown again. */
async function refused(call: Promise<unknown>, expected: ErrorReason): Promise<Record<string, string>> {
  try {
    await call;
  } catch (error) {
    const { reason, values } = why(error);
    if (reason === expected) return values;
    throw error;
  }
  throw new Error(`this should have been refused: ${ErrorReason[expected]}`);
}

async function tooShortADeadline(client: Todos, parent: string): Promise<void> {
  try {
    await client.listTodos({ parent, consistency: fullyConsistent }, { timeoutMs: 1 });
  } catch (error) {
    console.log(`too short a deadline: ${codeName(error)}`);
  }
}

/**
 * Writes at the first replica and reads at the second. The token makes the
 * second one wait until it has seen the write.
 */
async function onAnotherReplica(parent: string, addresses: readonly string[]): Promise<void> {
  const [first, second] = [connect(addresses.slice(0, 1)), connect(addresses.slice(1, 2))];
  const written = await create(first, parent, { title: "Written at one replica" });
  const request = { name: written.todo?.name, consistency: atLeastAsFresh(written.token) };
  const read = await second.getTodo(request, soon);
  console.log(`at another replica: ${read.todo?.title}`);
}
