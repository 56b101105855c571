// What is the same in Node and in a browser. `connect` is in tidemark-todos/node and in
// tidemark-todos/web.

export { Code } from "@connectrpc/connect";
export {
  cachedOnly, Client, type ClientOptions, type Consistency, DEFAULT_TIMEOUT_MS, fullyConsistent, type ListOptions,
  maxStaleness, type ReadOptions, type WriteOptions,
} from "./client.js";
export { type FieldProblem, type Reason, TodoError } from "./errors.js";
export { DEFAULT_MIRROR_BYTES, Mirror, type MirrorOptions } from "./mirror.js";
export * as pb from "../gen/todo/v1/todo_pb.js";
export { Role, type Todo, type TodoList, Todo_Priority, Todo_State } from "../gen/todo/v1/todo_pb.js";
