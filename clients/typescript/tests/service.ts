// Replicas of the service for the tests.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import type { TestContext } from "node:test";
import { type Client, connect, type NodeOptions, TodoError } from "tidemark-todos/node";

/** Programs start slowly where two cores run everything. */
const PATIENCE_MS = 60_000;

/** What clients/test says in the environment. */
export function setting(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run clients/test`);
  return value;
}

export async function eventually(what: string, happened: () => boolean | Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + PATIENCE_MS; !(await happened()); await sleep(20)) {
    if (Date.now() > deadline) throw new Error(`${what}: not within ${PATIENCE_MS} ms`);
  }
}

export function sleep(milliseconds: number): Promise<void> {
  return new Promise((done) => setTimeout(done, milliseconds));
}

/** A client that is closed when the test ends. */
export function client(t: TestContext, addresses: string[], options: NodeOptions = {}): Client {
  // A machine under load may need longer than the default.
  const made = connect(addresses, { timeoutMs: 30_000, ...options });
  t.after(() => made.close());
  return made;
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((done) => probe.listen(0, "127.0.0.1", done));
  const address = probe.address();
  await new Promise((done) => probe.close(done));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

/** A replica at an address that it keeps. */
export class Replica {
  #process: ChildProcess | undefined;
  #ended: Promise<unknown> = Promise.resolve();
  readonly #uri: string;
  readonly address: string;
  readonly #args: string[];
  readonly #probe: NodeOptions;

  private constructor(address: string, database: string, args: string[], probe: NodeOptions) {
    this.address = address;
    this.#args = args;
    this.#probe = probe;
    // Another run finds an empty database.
    this.#uri = setting("MONGODB_URI").replace("/tour?", `/${database}_${process.pid}?`);
  }

  /** `args` are more arguments; `probe` are the options that let a client in. */
  static async start(t: TestContext, database: string, args: string[] = [], probe: NodeOptions = {}): Promise<Replica> {
    const replica = new Replica(`127.0.0.1:${await freePort()}`, database, args, probe);
    t.after(() => replica.kill());
    await replica.start();
    return replica;
  }

  async start(): Promise<void> {
    const started = spawn("setpriv", [
      "--pdeathsig", "KILL", setting("SERVICE_BINARY"), "serve", "--mongodb-uri", this.#uri,
      "--redis-url", setting("REDIS_URL"), "--listen", this.address, "--metrics-listen", "127.0.0.1:0",
      ...this.#args,
    ], { stdio: "ignore" });
    this.#process = started;
    this.#ended = new Promise((done) => started.once("exit", done));
    const probe = connect(this.address, this.#probe);
    await eventually("the replica", () => probe.batchGetTodos(["lists/a/todos/a"])
      .then(() => true, (error: unknown) => error instanceof TodoError && error.reason === "PERMISSION_DENIED"));
    probe.close();
  }

  /** SIGKILL: connections break. */
  async kill(): Promise<void> {
    this.#process?.kill("SIGKILL");
    await this.#ended;
  }

  /** SIGTERM: it ends the watches and then itself. */
  async drain(): Promise<void> {
    this.#process?.kill("SIGTERM");
    await this.#ended;
  }

  /** SIGSTOP. It stops a moment after the signal. */
  async freeze(): Promise<void> {
    this.#process?.kill("SIGSTOP");
    const stat = `/proc/${this.#process?.pid}/stat`;
    await eventually("the stop", () => readFileSync(stat, "utf8").includes(") T "));
  }

  importTodos(count: number): void {
    const lines = Array.from({ length: count }, (_, n) =>
      JSON.stringify({ name: `lists/many/todos/t${n}`, title: `todo ${n}` }));
    const args = ["import", "--mongodb-uri", this.#uri, "-"];
    execFileSync(setting("SERVICE_BINARY"), args, { input: lines.join("\n"), stdio: ["pipe", "ignore", "ignore"] });
  }

  /** Drops the todos behind the service's back, which resets its watches. */
  async drop(): Promise<void> {
    const command = `${setting("MONGOSH")} "$0" --quiet --eval 'db.todos.drop()'`;
    const dropping = spawn("sh", ["-c", command, this.#uri], { stdio: "ignore" });
    const code = await new Promise((done) => dropping.once("exit", done));
    if (code !== 0) throw new Error(`mongosh ended with ${code}`);
  }
}

/** An API key, and its line for --keys-file. */
export function newKey(principal: string): [key: string, line: string] {
  const [key = "", line = ""] = execFileSync(setting("SERVICE_BINARY"), ["key", "new", principal], {
    encoding: "utf8", stdio: ["ignore", "pipe", "ignore"],
  }).split("\n");
  return [key, line];
}
