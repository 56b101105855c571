// A list kept in a local map, through lost connections. The same in Node and
// in a browser.

import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorReason, type Todo, type TodoChange, type WatchTodosResponse } from "../gen/todo/v1/todo_pb.js";
import { codeName, reasonName, why } from "./errors.js";
import { CALL_TIMEOUT_MS, pause } from "./replicas.js";
import type { Todos } from "./write.js";

const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 2000;

/** The service says where a watch stands at least so often; three times silent means lost. */
const PROGRESS_SECONDS = 5;
const SILENCE_MS = 3 * PROGRESS_SECONDS * 1000;

/** Trying a read again would be refused again. */
const LASTING = [Code.InvalidArgument, Code.Unimplemented, Code.Unauthenticated, Code.PermissionDenied];
/** The token is of another database, or of one restored to the past. */
const TOKEN_IS_VOID = [ErrorReason.TOKEN_FOREIGN, ErrorReason.TOKEN_INVALID];

/**
 * Lists once, then watches from where the list ended. A lost connection costs
 * nothing but time, since the watch goes on from the last token, on whatever
 * replica answers.
 */
export class Mirror {
  /** The list as it is now, by name. */
  todos = new Map<string, Todo>();

  /** Empty: all must be listed anew. */
  #token = "";
  /** What the next listing must not be older than. */
  #floor = "";
  readonly #client: Todos;
  readonly #parent: string;
  readonly #say: (line: string) => void;

  constructor(client: Todos, parent: string, say: (line: string) => void) {
    this.#client = client;
    this.#parent = parent;
    this.#say = say;
  }

  /** Follows the list until the signal, or throws what makes no sense to try again. */
  async run(signal: AbortSignal): Promise<void> {
    let wait = FIRST_PAUSE_MS;
    while (!signal.aborted) {
      const before = this.#token;
      try {
        await this.#follow(signal);
      } catch (error) {
        if (signal.aborted) return;
        if (TOKEN_IS_VOID.includes(why(error).reason)) {
          this.#token = this.#floor = "";
        } else if (LASTING.includes(ConnectError.from(error).code)) {
          throw error;
        }
        this.#say(`lost: ${codeName(error)} ${reasonName(error)}`);
      }
      wait = this.#token === before ? Math.min(2 * wait, LONGEST_PAUSE_MS) : FIRST_PAUSE_MS;
      await pause(wait, signal);
    }
  }

  /** Lists if it must, then watches until the stream ends or falls silent. */
  async #follow(signal: AbortSignal): Promise<void> {
    if (!this.#token) await this.#list(signal);
    const silence = new AbortController();
    const listen = () => setTimeout(() => silence.abort(), SILENCE_MS);
    let timer = listen();
    try {
      // The one call without a deadline: it is meant to last.
      const stream = this.#client.watchTodos({
        parent: this.#parent,
        start: { case: "after", value: this.#token },
        includeTodo: true,
        progressInterval: { seconds: BigInt(PROGRESS_SECONDS) },
      }, { signal: AbortSignal.any([signal, silence.signal]) });
      let following = false;
      for await (const message of stream) {
        clearTimeout(timer);
        timer = listen();
        if (!following) this.#say("following");
        following = true;
        await this.#take(message, signal);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async #take(message: WatchTodosResponse, signal: AbortSignal): Promise<void> {
    this.#token = message.token;
    switch (message.event.case) {
      case "change":
        this.#apply(message.event.value);
        break;
      case "reset":
        this.#say(`reset: ${message.event.value.reason}`);
        [this.#token, this.#floor] = ["", message.token];
        await this.#list(signal);
    }
  }

  /** Reads all pages. The token of the last is where the watch begins. */
  async #list(signal: AbortSignal): Promise<void> {
    const todos = new Map<string, Todo>();
    const consistency = this.#floor
      ? { requirement: { case: "atLeastAsFresh", value: this.#floor } as const }
      : undefined;
    for (let pageToken: string | undefined; pageToken !== "";) {
      const request = { parent: this.#parent, pageSize: 1000, pageToken, consistency };
      const page = await this.#client.listTodos(request, { signal, timeoutMs: CALL_TIMEOUT_MS });
      for (const todo of page.todos) todos.set(todo.name, todo);
      pageToken = page.nextPageToken;
      if (!pageToken) [this.todos, this.#token] = [todos, page.read?.token ?? ""];
    }
  }

  /** A change without its todo is of one that is gone by now, whatever its kind. */
  #apply(change: TodoChange): void {
    if (change.todo) {
      this.todos.set(change.name, change.todo);
      this.#say(`put: ${change.name} ${change.todo.title}`);
    } else {
      this.todos.delete(change.name);
      this.#say(`gone: ${change.name}`);
    }
  }
}
