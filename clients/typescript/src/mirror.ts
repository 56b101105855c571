// A list kept in memory. The same in Node and in a browser.

import { equals, toBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { type Todo, type TodoChange, TodoChange_Kind, TodoSchema, type WatchTodosResponse } from "../gen/todo/v1/todo_pb.js";
import { atLeastAsFresh, type Client } from "./client.js";
import { TodoError } from "./errors.js";
import { pause } from "./replicas.js";
import { Session } from "./session.js";

/** Bounds a mirror by the encoded size of its todos. */
export const DEFAULT_MIRROR_BYTES = 64 << 20;

const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 2000;

/** The service sends a message at least so often; three times silent means lost. */
const PROGRESS_SECONDS = 5;
const SILENCE_MS = 3 * PROGRESS_SECONDS * 1000;

/** The same call would fail again. */
const LASTING = [Code.InvalidArgument, Code.Unimplemented, Code.PermissionDenied];

export interface MirrorOptions {
  /** Called for each todo that is new or changed, and with undefined for each that is gone. */
  onChange?: (name: string, todo: Todo | undefined) => void;
  /** Called when the mirror follows the list: at first, and after onStale. */
  onReady?: () => void;
  /**
   * Called when the mirror stops following the list: a lost connection, a draining replica, a
   * reset (then there is no error). It recovers by itself.
   */
  onStale?: (error: TodoError | undefined) => void;
  /** Replaces DEFAULT_MIRROR_BYTES. `run` fails when the list is larger. */
  maxBytes?: number;
}

/**
 * Keeps a list in memory. It lists once, then watches from where the list ended. After a lost
 * connection the watch goes on from the last token, on whatever replica answers; after a reset the
 * mirror lists anew, not older than what it showed. It never shows a todo in a state older than one
 * that it showed before, unless the database itself was replaced.
 */
export class Mirror {
  #todos = new Map<string, Todo>();
  #bytes = 0;
  #ready = false;
  /** Empty: all must be listed anew. */
  #token = "";
  /** The newest state shown: no listing may be older. */
  #shown = new Session();
  readonly #client: Client;
  readonly #parent: string;
  readonly #options: MirrorOptions;

  constructor(client: Client, parent: string, options: MirrorOptions) {
    this.#client = client;
    this.#parent = parent;
    this.#options = options;
  }

  /** The list as it is now, sorted by name. */
  get todos(): Todo[] {
    return [...this.#todos.values()].sort((one, other) => (one.name < other.name ? -1 : 1));
  }

  /** One todo as it is now. */
  get(name: string): Todo | undefined {
    return this.#todos.get(name);
  }

  /** Whether the mirror follows the list at this moment. */
  get ready(): boolean {
    return this.#ready;
  }

  /**
   * Follows the list until the signal, or throws what no repetition can resolve: an invalid name, a
   * missing permission, a list that is too large.
   */
  async run(signal: AbortSignal): Promise<void> {
    try {
      await this.#run(signal);
    } finally {
      this.#ready = false;
    }
  }

  async #run(signal: AbortSignal): Promise<void> {
    let wait = FIRST_PAUSE_MS;
    while (!signal.aborted) {
      const before = this.#token;
      let failed: TodoError | undefined;
      try {
        await this.#follow(signal);
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof TodoError)) throw error;
        failed = error;
      }
      const moved = this.#token !== before;
      if (failed?.voidsToken) {
        // Of another database, or of one restored to the past.
        [this.#token, this.#shown] = ["", new Session()];
      } else if (failed && (LASTING.includes(failed.code) || (failed.code === Code.Unauthenticated && !moved))) {
        // A credential that expired during a watch is not lasting: the next call has a new one.
        throw failed;
      }
      this.#becomesStale(failed);
      if (moved) wait = FIRST_PAUSE_MS;
      if (failed) await pause(Math.max(wait * (0.5 + Math.random() / 2), failed.retryAfterMs), signal);
      wait = Math.min(2 * wait, LONGEST_PAUSE_MS);
    }
  }

  /** Lists if it must, then watches until the stream ends. Returns after a reset. */
  async #follow(signal: AbortSignal): Promise<void> {
    if (!this.#token) await this.#list(signal);
    const ended = new AbortController();
    const listen = () => setTimeout(() => ended.abort(), SILENCE_MS);
    let timer = listen();
    try {
      // The one call without a deadline: it is meant to last.
      const stream = this.#client.stub.watchTodos({
        parent: this.#parent,
        start: { case: "after", value: this.#token },
        includeTodo: true,
        progressInterval: { seconds: BigInt(PROGRESS_SECONDS) },
      }, { signal: AbortSignal.any([signal, ended.signal]) });
      for await (const message of stream) {
        clearTimeout(timer);
        timer = listen();
        if (await this.#take(message, signal)) return;
      }
    } finally {
      clearTimeout(timer);
      ended.abort();
    }
  }

  /**
   * Applies one message, and then advances the token. True if the list must be read again: what the
   * stream still holds may be older than that listing.
   */
  async #take(message: WatchTodosResponse, signal: AbortSignal): Promise<boolean> {
    this.#shown.observe(message.token);
    if (message.event.case === "reset") {
      this.#token = "";
      return true;
    }
    if (message.event.case === "change") await this.#change(message.event.value, message.token, signal);
    this.#token = message.token;
    this.#client.observe(message.token);
    if (!this.#ready) {
      this.#ready = true;
      this.#options.onReady?.();
    }
    return false;
  }

  /**
   * Applies one change. Without its todo it is of one that is gone, or that the service could not
   * read in time: only a deletion says which.
   */
  async #change(change: TodoChange, token: string, signal: AbortSignal): Promise<void> {
    let todo = change.todo;
    if (!todo && change.kind !== TodoChange_Kind.DELETED) {
      try {
        const reply = await this.#client.getTodo(change.name, { consistency: atLeastAsFresh(token), signal });
        todo = reply.todo;
        this.#shown.observe(reply.read?.token);
      } catch (error) {
        const failed = TodoError.from(error);
        if (failed.reason !== "TODO_NOT_FOUND" && failed.reason !== "TODO_UNREADABLE") throw failed;
        this.#shown.observe(failed.metadata["token"]);
      }
    }
    this.#put(change.name, todo);
  }

  /** Reads all pages. The token of the last is where the watch begins. */
  async #list(signal: AbortSignal): Promise<void> {
    const todos = new Map<string, Todo>();
    let [bytes, token] = [0, ""];
    // Not older than what the mirror showed, and what the client wrote and read.
    const newest = new Session(this.#client.token);
    newest.observe(this.#shown.token);
    const consistency = newest.token ? atLeastAsFresh(newest.token) : undefined;
    for await (const page of this.#client.pages({ parent: this.#parent, pageSize: 1000, consistency }, { signal })) {
      for (const todo of page.todos) {
        todos.set(todo.name, todo);
        bytes += size(todo);
      }
      this.#checkSize(bytes);
      token = page.read?.token ?? "";
      this.#shown.observe(token);
    }
    this.#replace(todos, bytes);
    this.#token = token;
  }

  /** Shows a listing, and reports how it differs from what was shown. */
  #replace(todos: Map<string, Todo>, bytes: number): void {
    const before = this.#todos;
    [this.#todos, this.#bytes] = [todos, bytes];
    for (const name of before.keys()) {
      if (!todos.has(name)) this.#options.onChange?.(name, undefined);
    }
    for (const [name, todo] of [...todos]) {
      const was = before.get(name);
      if (!was || !equals(TodoSchema, was, todo)) this.#options.onChange?.(name, todo);
    }
  }

  /** Shows one todo, or that it is gone. */
  #put(name: string, todo: Todo | undefined): void {
    const was = this.#todos.get(name);
    if (was) this.#bytes -= size(was);
    this.#todos.delete(name);
    if (todo) {
      this.#todos.set(name, todo);
      this.#bytes += size(todo);
    }
    const same = was && todo ? equals(TodoSchema, was, todo) : was === todo;
    if (!same) this.#options.onChange?.(name, todo);
    this.#checkSize(this.#bytes);
  }

  #checkSize(bytes: number): void {
    const most = this.#options.maxBytes ?? DEFAULT_MIRROR_BYTES;
    if (bytes > most) throw new RangeError(`${this.#parent} has more than ${most} bytes; raise maxBytes`);
  }

  /** Marks the mirror. Before it followed, only an error is reported. */
  #becomesStale(failed: TodoError | undefined): void {
    const was = this.#ready;
    this.#ready = false;
    if (was || failed) this.#options.onStale?.(failed);
  }
}

function size(todo: Todo): number {
  return toBinary(TodoSchema, todo).length;
}
