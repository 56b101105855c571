// The library against real replicas.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { test, type TestContext } from "node:test";
import { type Client, Code, fullyConsistent, type Mirror, TodoError } from "tidemark-todos/node";
import { client, eventually, newKey, Replica, setting, sleep } from "./service.js";

async function refused(call: Promise<unknown>, reason: string): Promise<TodoError> {
  const error = await call.then(() => undefined, (error: unknown) => error);
  assert(error instanceof TodoError, `not a TodoError: ${error}`);
  assert.equal(error.reason, reason, error.message);
  return error;
}

async function two(t: TestContext, database: string): Promise<[Replica, Replica]> {
  return [await Replica.start(t, database), await Replica.start(t, database)];
}

test("reads see writes on any replica", async (t) => {
  const [one, other] = await two(t, "ts_reads");
  const both = client(t, [one.address, other.address]);
  for (let n = 0; n < 30; n++) {
    const todo = await both.createTodo("lists/home", { title: `${n}` });
    // Round robin: these go to different replicas.
    for (let read = 0; read < 2; read++) assert.equal((await both.getTodo(todo.name)).todo?.title, `${n}`);
    let listed = 0;
    for await (const _ of both.listTodos("lists/home")) listed++;
    assert.equal(listed, n + 1);
  }
  // The same across two clients, when one passes its token on.
  const first = client(t, [one.address]);
  const todo = await first.createTodo("lists/home", { title: "over" }, { todoId: "handed" });
  const second = client(t, [other.address], { token: first.token });
  assert.equal((await second.getTodo(todo.name)).todo?.title, "over");
  const session = both.newSession();
  assert.equal(session.token, "");
  await session.getTodo(todo.name);
  assert.notEqual(session.token, "");
});

test("calls outlive their connections", async (t) => {
  // The service closes each connection at its age, here every second, with GOAWAY.
  const replica = await Replica.start(t, "ts_age", ["--max-connection-age", "1s"]);
  const one = client(t, [replica.address]);
  const todo = await one.createTodo("lists/home", { title: "x" });
  const end = Date.now() + 6000;
  const read = async (): Promise<number> => {
    let reads = 0;
    for (; Date.now() < end; reads++) await one.getTodo(todo.name);
    return reads;
  };
  const reads = await Promise.all([read(), read(), read(), read()]);
  assert(reads.every((some) => some > 25), `${reads}`);
});

test("errors have a reason", async (t) => {
  const replica = await Replica.start(t, "ts_errors");
  const one = client(t, [replica.address]);
  const missing = await refused(one.getTodo("lists/home/todos/none"), "TODO_NOT_FOUND");
  assert.equal(missing.code, Code.NotFound);
  assert.equal(missing.metadata["name"], "lists/home/todos/none");
  assert.equal(missing.metadata["token"], one.token);
  const invalid = await refused(one.createTodo("lists/home", {}), "FIELD_INVALID");
  assert.deepEqual(invalid.fields.map(({ field }) => field), ["todo.title"]);
  const milk = await one.createTodo("lists/home", { title: "Buy milk" }, { todoId: "milk" });
  await one.updateTodo({ name: milk.name, title: "Buy oat milk", etag: milk.etag }, { fields: ["title"] });
  await refused(one.updateTodo({ name: milk.name, title: "x", etag: milk.etag }), "ETAG_MISMATCH");
  await one.deleteTodo(milk.name);
  // A token of nobody is refused once; the session goes on without it.
  const stranger = client(t, [replica.address], { token: "AAAA" });
  await refused(stranger.getTodo(milk.name), "TOKEN_INVALID");
  await refused(stranger.getTodo(milk.name), "TODO_NOT_FOUND");
});

test("deadlines hold", async (t) => {
  const replica = await Replica.start(t, "ts_deadlines");
  const one = client(t, [replica.address]);
  // Connects before the replica is frozen.
  const milk = await one.createTodo("lists/home", { title: "Buy milk" });
  await replica.freeze();
  for (const timeoutMs of [500, 200]) {
    const started = performance.now();
    const late = await refused(one.getTodo(milk.name, { timeoutMs }), "");
    assert.equal(late.code, Code.DeadlineExceeded);
    assert(performance.now() - started < 3000);
  }
});

test("lists of 2500 todos", async (t) => {
  const [one, other] = await two(t, "ts_pages");
  one.importTodos(2500);
  const both = client(t, [one.address, other.address]);
  for (const pageSize of [0, 333, 1000]) {
    const names = new Set<string>();
    for await (const todo of both.listTodos("lists/many", { pageSize, consistency: fullyConsistent() })) names.add(todo.name);
    assert.equal(names.size, 2500, `pages of ${pageSize}`);
  }
  const mirror = both.mirror("lists/many", { maxBytes: 10_000 });
  await assert.rejects(mirror.run(new AbortController().signal), RangeError);
});

test("lists", async (t) => {
  const one = client(t, [(await Replica.start(t, "ts_lists")).address]);
  const work = await one.createTodoList({ title: "Work" }, { todoListId: "work" });
  assert.equal(work.name, "lists/work");
  await one.updateTodoList({ name: work.name, title: "Office", etag: work.etag }, { fields: ["title"] });
  assert.equal((await one.getTodoList(work.name)).title, "Office");
  await one.createTodo(work.name, { title: "Write" });
  const names: string[] = [];
  for await (const { name } of one.listTodoLists()) names.push(name);
  assert.deepEqual(names, ["lists/work"]);
  await refused(one.deleteTodoList(work.name), "LIST_NOT_EMPTY");
  await one.deleteTodoList(work.name, { force: true });
});

test("TLS and credentials", async (t) => {
  const file = (name: string) => `${setting("CERTIFICATES")}/${name}`;
  const [ca, cert, key] = ["ca.pem", "client.pem", "client.key"].map((name) => readFileSync(file(name)));
  const tls = { ca, cert, key };
  const [[ada, adasLine], [bob, bobsLine]] = [newKey("user:ada"), newKey("user:bob")];
  const folder = mkdtempSync(`${tmpdir()}/keys-`);
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(`${folder}/keys`, `${adasLine}\n${bobsLine}\n`);
  const args = [
    "--tls-cert", file("service.pem"), "--tls-key", file("service.key"), "--tls-client-ca", file("ca.pem"),
    "--auth", "keys", "--keys-file", `${folder}/keys`,
  ];
  const start = () => Replica.start(t, "ts_tls", args, { tls, bearer: ada });
  const both = [(await start()).address, (await start()).address];
  const adas = client(t, both, { tls, bearer: async () => ada });
  const { name } = await adas.createTodoList({ title: "Ada's" }, { todoListId: "ada" });
  for (let n = 0; n < 4; n++) await adas.createTodo(name, { title: "Compute" });
  const mirror = adas.mirror(name);
  const end = new AbortController();
  const ended = mirror.run(end.signal);
  await eventually("a mirror with credentials", () => mirror.ready);
  assert.equal(mirror.todos.length, 4);
  end.abort();
  await ended;
  assert.equal(mirror.ready, false);

  const bobs = client(t, both, { tls, bearer: bob });
  await refused(bobs.mirror(name).run(new AbortController().signal), "PERMISSION_DENIED");
  await refused(client(t, both, { tls }).getTodo(`${name}/todos/a`), "CALLER_UNKNOWN");
  await refused(client(t, both, { tls: { ca }, timeoutMs: 2000 }).getTodo(`${name}/todos/a`), "");
});

test("a mirror ends when repetition is no use", async (t) => {
  const replica = await Replica.start(t, "ts_mirror_ends");
  const mirror = client(t, [replica.address]).mirror("no list");
  await refused(mirror.run(new AbortController().signal), "FIELD_INVALID");
});

test("a mirror through breaks, drains and resets", async (t) => {
  const [one, other] = await two(t, "ts_mirror");
  const both = client(t, [one.address, other.address]);
  for (const id of ["a", "b"]) await create(both, id);
  await both.createTodo("lists/home", { title: "0" }, { todoId: "counter" });
  const lost: (string | undefined)[] = [];
  const numbers: number[] = [];
  const mirror = client(t, [one.address, other.address]).mirror("lists/home", {
    onChange: (name, todo) => {
      if (name.endsWith("/counter") && todo) numbers.push(Number(todo.title));
    },
    onStale: (error) => lost.push(error?.reason),
  });
  const end = new AbortController();
  const ended = mirror.run(end.signal);
  await eventually("readiness", () => mirror.ready);

  const stop = new AbortController();
  t.after(() => stop.abort());
  const counting = countUp(both.newSession(), stop.signal);
  await appears(both, mirror, "c");
  // Wherever the watch is, it is lost both ways: by a break, and by a drain.
  await one.kill();
  await appears(both, mirror, "d");
  await one.start();
  await other.drain();
  await appears(both, mirror, "e");
  await other.start();
  await one.kill();
  // A deletion has no request id: it may be reported as lost.
  await eventually("a deletion", () =>
    both.deleteTodo("lists/home/todos/a", { allowMissing: true }).then(() => true, () => false));
  await appears(both, mirror, "f");
  await eventually("the deletion", () => mirror.get("lists/home/todos/a") === undefined);
  await one.start();
  // A write that the killed replica had begun may keep the next ones waiting for seconds.
  await eventually("updates", () => (numbers.at(-1) ?? 0) > 10);
  stop.abort();
  await counting;
  await equalsTheList(mirror, both);
  assert.deepEqual(numbers, [...numbers].sort((a, b) => a - b), "the mirror went back");

  await one.drop();
  await eventually("the reset", () => lost.includes(undefined));
  await appears(both, mirror, "g");
  await equalsTheList(mirror, both);
  assert.deepEqual(mirror.todos.map(({ title }) => title), ["todo g"]);
  end.abort();
  await ended;
  assert(lost.includes("DRAINING") && lost.includes(""), `${lost}`);
});

async function create(by: Client, id: string): Promise<void> {
  await by.createTodo("lists/home", { title: `todo ${id}` }, { todoId: id });
}

async function appears(by: Client, mirror: Mirror, id: string): Promise<void> {
  await create(by, id);
  await eventually(id, () => mirror.get(`lists/home/todos/${id}`) !== undefined);
}

async function equalsTheList(mirror: Mirror, by: Client): Promise<void> {
  await eventually("the same list", async () => {
    const listed: string[] = [];
    for await (const todo of by.listTodos("lists/home", { consistency: fullyConsistent() })) listed.push(todo.name + todo.etag);
    return listed.sort().join() === mirror.todos.map(({ name, etag }) => name + etag).join();
  });
}

/** Writes one number after the other into a todo. */
async function countUp(by: Client, signal: AbortSignal): Promise<void> {
  for (let n = 1; !signal.aborted; n++) {
    // After a failure the next number will do.
    await by.updateTodo({ name: "lists/home/todos/counter", title: `${n}` }, { fields: ["title"] }).catch(() => {});
    await sleep(5);
  }
}
