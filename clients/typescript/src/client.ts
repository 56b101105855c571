// The client, over any transport.

import { clone, create, type DescMessage, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { type CallOptions, type Client as Stub, createClient, type Transport } from "@connectrpc/connect";
import {
  type BatchGetTodosResponse, ConsistencySchema, type GetTodoResponse, type ListTodosRequestSchema,
  type ListTodosResponse, type Todo, type TodoList, type TodoListSchema, type TodoSchema, TodoService,
} from "../gen/todo/v1/todo_pb.js";
import { TodoError } from "./errors.js";
import { Mirror, type MirrorOptions } from "./mirror.js";
import { pause } from "./replicas.js";
import { Session } from "./session.js";

/**
 * Bounds a call that states no timeoutMs. The service stops working on a call when its deadline
 * passes.
 */
export const DEFAULT_TIMEOUT_MS = 5000;

/** The most todos that the service puts into a page. */
const MAX_PAGE_SIZE = 1000;

/** How long a write waits before it is repeated: doubled each time, with jitter. */
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 2000;

/** A consistency level. */
export type Consistency = MessageInitShape<typeof ConsistencySchema>;
type TodoInit = MessageInitShape<typeof TodoSchema>;
type TodoListInit = MessageInitShape<typeof TodoListSchema>;

/** Makes a read reflect every write acknowledged before it began. */
export function fullyConsistent(): Consistency {
  return { requirement: { case: "fullyConsistent", value: true } };
}

/** Makes a read miss no write acknowledged longer ago than this. */
export function maxStaleness(milliseconds: number): Consistency {
  return { requirement: { case: "maxStaleness", value: durationFromMs(milliseconds) } };
}

/** Makes a read fail rather than ask the database. */
export function cachedOnly(): Consistency {
  return { requirement: { case: "cachedOnly", value: true } };
}

export function atLeastAsFresh(token: string): Consistency {
  return { requirement: { case: "atLeastAsFresh", value: token } };
}

export interface ClientOptions {
  /** Replaces DEFAULT_TIMEOUT_MS. */
  timeoutMs?: number;
  /** Continues the session of another client or process. */
  token?: string;
  /**
   * An API key or a JWT, or a function that returns one, sent as `authorization: Bearer`. Use it
   * with TLS: without, the network can read it.
   */
  bearer?: string | (() => string | Promise<string>);
}

/** Options of one call. */
export interface ReadOptions extends Pick<CallOptions, "signal" | "timeoutMs"> {
  /** Replaces the session's consistency level. */
  consistency?: Consistency;
}
export type WriteOptions = Pick<CallOptions, "signal" | "timeoutMs">;

/** What listTodos selects. */
export interface ListOptions extends ReadOptions {
  filter?: string;
  orderBy?: string;
  pageSize?: number;
}

/**
 * Calls the service. A client is one session: each read is at least as fresh as everything that
 * the session has written and read before, on whatever replica answers. Writes are repeated until
 * the deadline as long as that cannot write twice. Errors are TodoErrors.
 *
 * `connect` of `tidemark-todos/node` and of `tidemark-todos/web` make one.
 */
export class Client {
  /** Every call as generated, with the same deadlines, session, repetitions and errors. */
  readonly stub: Stub<typeof TodoService>;
  readonly #transport: Transport;
  readonly #options: ClientOptions;
  readonly #session: Session;
  readonly #release: () => void;

  constructor(transport: Transport, options: ClientOptions = {}, release: () => void = () => {}) {
    this.#transport = transport;
    this.#options = options;
    this.#session = new Session(options.token);
    this.#release = release;
    this.stub = createClient(TodoService, ofSession(transport, this.#session, options));
  }

  /** Releases the connections, also those of the client's other sessions. */
  close(): void {
    this.#release();
  }

  /**
   * A client with a session of its own over the same connections: for example one for each user
   * of a program. `token` continues another session.
   */
  newSession(token = ""): Client {
    return new Client(this.#transport, { ...this.#options, token }, this.#release);
  }

  /** The newest token of the session, to continue it elsewhere; empty before the first call. */
  get token(): string {
    return this.#session.token;
  }

  /** Takes a token of another session into this one. */
  observe(token: string): void {
    this.#session.observe(token);
  }

  /** Reads one todo. */
  getTodo(name: string, { consistency, ...call }: ReadOptions = {}): Promise<GetTodoResponse> {
    return this.stub.getTodo({ name, consistency }, call);
  }

  /** Reads up to 1000 todos. */
  batchGetTodos(names: string[], { consistency, ...call }: ReadOptions = {}): Promise<BatchGetTodosResponse> {
    return this.stub.batchGetTodos({ names, consistency }, call);
  }

  /** Iterates over all todos of a list (`lists/{list}`), page by page. The timeout is for each page. */
  async *listTodos(parent: string, options: ListOptions = {}): AsyncGenerator<Todo, void, undefined> {
    const { signal, timeoutMs, pageSize = MAX_PAGE_SIZE, ...selected } = options;
    for await (const page of this.pages({ parent, pageSize, ...selected }, { signal, timeoutMs })) yield* page.todos;
  }

  /**
   * Iterates over the pages themselves, which also state how fresh they are and which todos cannot
   * be read.
   */
  async *pages(
    request: MessageInitShape<typeof ListTodosRequestSchema>, call: WriteOptions = {},
  ): AsyncGenerator<ListTodosResponse, void, undefined> {
    for (let pageToken = request.pageToken ?? ""; ;) {
      const page = await this.stub.listTodos({ ...request, pageToken }, call);
      yield page;
      pageToken = page.nextPageToken;
      if (pageToken === "") return;
    }
  }

  /** Creates a todo in a list (`lists/{list}`). */
  async createTodo(parent: string, todo: TodoInit, call: WriteOptions & { todoId?: string } = {}): Promise<Todo> {
    const { todoId = "", ...options } = call;
    return written(await this.stub.createTodo({ parent, todo, todoId }, options));
  }

  /**
   * Writes the named fields of the todo, or those that are set. If the todo has an etag, it writes
   * only if the etag matches.
   */
  async updateTodo(
    todo: TodoInit, call: WriteOptions & { fields?: string[]; allowMissing?: boolean } = {},
  ): Promise<Todo> {
    const { fields, allowMissing = false, ...options } = call;
    const updateMask = fields && { paths: fields };
    return written(await this.stub.updateTodo({ todo, updateMask, allowMissing }, options));
  }

  /** Deletes a todo. */
  async deleteTodo(
    name: string, call: WriteOptions & { etag?: string; allowMissing?: boolean } = {},
  ): Promise<void> {
    const { etag = "", allowMissing = false, ...options } = call;
    await this.stub.deleteTodo({ name, etag, allowMissing }, options);
  }

  /** Reads one list: its title and its members. */
  async getTodoList(name: string, { consistency, ...call }: ReadOptions = {}): Promise<TodoList> {
    return listed(await this.stub.getTodoList({ name, consistency }, call));
  }

  /** Iterates over all lists that the caller may read, page by page. */
  async *listTodoLists({ consistency, ...call }: ReadOptions = {}): AsyncGenerator<TodoList, void, undefined> {
    for (let pageToken = ""; ;) {
      const page = await this.stub.listTodoLists({ pageSize: MAX_PAGE_SIZE, pageToken, consistency }, call);
      yield* page.todoLists;
      pageToken = page.nextPageToken;
      if (pageToken === "") return;
    }
  }

  /** Creates a list. With authentication the caller becomes an owner. */
  async createTodoList(todoList: TodoListInit, call: WriteOptions & { todoListId?: string } = {}): Promise<TodoList> {
    const { todoListId = "", ...options } = call;
    return listed(await this.stub.createTodoList({ todoList, todoListId }, options));
  }

  /**
   * Writes the named fields of the list (`title`, `members`), or those that are set. If the list has an
   * etag, it writes only if the etag matches.
   */
  async updateTodoList(todoList: TodoListInit, call: WriteOptions & { fields?: string[] } = {}): Promise<TodoList> {
    const { fields, ...options } = call;
    return listed(await this.stub.updateTodoList({ todoList, updateMask: fields && { paths: fields } }, options));
  }

  /** Deletes a list. With its todos it does so only if `force` is set. */
  async deleteTodoList(name: string, call: WriteOptions & { etag?: string; force?: boolean } = {}): Promise<void> {
    const { etag = "", force = false, ...options } = call;
    await this.stub.deleteTodoList({ name, etag, force }, options);
  }

  /** A mirror of a list (`lists/{list}`). Its `run` starts it. */
  mirror(parent: string, options: MirrorOptions = {}): Mirror {
    return new Mirror(this, parent, options);
  }
}

function written(reply: { todo?: Todo }): Todo {
  if (!reply.todo) throw new TypeError("the service answered a write without its todo");
  return reply.todo;
}

function listed(reply: { todoList?: TodoList }): TodoList {
  if (!reply.todoList) throw new TypeError("the service answered without the list");
  return reply.todoList;
}

/**
 * The transport as a session uses it: each call has its deadline, its credential and the session's
 * token, is repeated where that is safe, and gives the token of its answer to the session.
 */
function ofSession(inner: Transport, session: Session, options: ClientOptions): Transport {
  const headers = async (header: HeadersInit | undefined): Promise<Headers> => {
    const all = new Headers(header);
    if (options.bearer !== undefined) {
      const credential = typeof options.bearer === "string" ? options.bearer : await options.bearer();
      all.set("authorization", `Bearer ${credential}`);
    }
    return all;
  };
  return {
    async unary(method, signal, timeoutMs, header, input, contextValues) {
      const limit = timeoutMs ?? options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
      const deadline = performance.now() + limit;
      const { request, presented } = prepare(method.input, input, session.token);
      for (let wait = FIRST_PAUSE_MS; ; wait = Math.min(2 * wait, LONGEST_PAUSE_MS)) {
        const left = Math.max(1, Math.ceil(deadline - performance.now()));
        try {
          const reply = await inner.unary(method, signal, left, await headers(header), request as MessageInitShape<typeof method.input>, contextValues);
          session.observe(tokenOf(reply.message));
          return reply;
        } catch (error) {
          const failed = TodoError.from(error);
          session.observe(failed.metadata["token"]);
          if (failed.voidsToken) session.forget(presented);
          const next = Math.max(wait * (0.5 + Math.random() / 2), failed.retryAfterMs);
          const late = performance.now() + next > deadline || signal?.aborted;
          if (late || !mayRepeat(method.input, failed)) throw failed;
          await pause(next, signal);
        }
      }
    },

    async stream(method, signal, timeoutMs, header, input, contextValues) {
      async function* translated<T>(messages: AsyncIterable<T>) {
        try {
          yield* messages;
        } catch (error) {
          throw TodoError.from(error);
        }
      }
      try {
        const reply = await inner.stream(method, signal, timeoutMs, await headers(header), input, contextValues);
        return { ...reply, message: translated(reply.message) };
      } catch (error) {
        throw TodoError.from(error);
      }
    },
  };
}

/** What many requests have. */
interface Fields {
  consistency?: ReturnType<typeof atLeastAsFreshMessage>;
  requestId?: string;
}

const atLeastAsFreshMessage = (token: string) => create(ConsistencySchema, atLeastAsFresh(token));

/**
 * A copy of the request with the session's token, if the request states no level, and with a
 * request id; and the token that it presents. The caller's message stays as it is.
 */
function prepare<I extends DescMessage>(
  schema: I, input: MessageInitShape<I>, token: string,
): { request: MessageShape<I>; presented: string } {
  const request = clone(schema, create(schema, input));
  const fields: Fields = request as object;
  let presented = "";
  if ("consistency" in schema.field && token && !fields.consistency) {
    presented = token;
    fields.consistency = atLeastAsFreshMessage(token);
  }
  if ("requestId" in schema.field && !fields.requestId) fields.requestId = randomUuid();
  return { request, presented };
}

/** crypto.randomUUID exists only on pages from https and from this machine. */
function randomUuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** The token of an answer: of a write in `token`, of a read in `read.token`. */
function tokenOf(reply: object): string | undefined {
  const { token, read } = reply as { token?: unknown; read?: { token?: string } };
  return read ? read.token : typeof token === "string" ? token : undefined;
}

/**
 * Whether a call may be sent again. Reads are repeated by the service config. With a request id the
 * service writes once, however often it is asked.
 */
function mayRepeat(schema: DescMessage, failed: TodoError): boolean {
  if ("consistency" in schema.field) return false;
  if ("requestId" in schema.field) return failed.isLost || failed.reason === "WRITE_OUTCOME_UNKNOWN";
  return failed.hadNoEffect;
}
