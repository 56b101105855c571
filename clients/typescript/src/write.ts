// Writes that may be tried again.

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import type { CreateTodoResponse, TodoSchema, TodoService, UpdateTodoResponse } from "../gen/todo/v1/todo_pb.js";
import { hadNoEffect, isLost } from "./errors.js";
import { CALL_TIMEOUT_MS, pause } from "./replicas.js";

export type Todos = Client<typeof TodoService>;
type TodoInit = MessageInitShape<typeof TodoSchema>;

const MOST_TRIES = 6;
const FIRST_PAUSE_MS = 50;

/**
 * Creates a todo once, however often it has to ask: the request has an id, and
 * with the same id the service never writes twice.
 */
export function create(client: Todos, parent: string, todo: TodoInit): Promise<CreateTodoResponse> {
  const request = { parent, todo, requestId: crypto.randomUUID() };
  return untilDone(() => client.createTodo(request, { timeoutMs: CALL_TIMEOUT_MS }), isLost);
}

/**
 * Writes the fields that are set, if the todo still is as its etag says. It has
 * no request id: another try is safe only if the first had no effect.
 */
export function update(client: Todos, todo: TodoInit): Promise<UpdateTodoResponse> {
  return untilDone(() => client.updateTodo({ todo }, { timeoutMs: CALL_TIMEOUT_MS }), hadNoEffect);
}

async function untilDone<T>(call: () => Promise<T>, mayTryAgain: (error: unknown) => boolean): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await call();
    } catch (error) {
      if (tries === MOST_TRIES || !mayTryAgain(error)) throw error;
    }
    await pause(FIRST_PAUSE_MS * 2 ** (tries - 1));
  }
}
