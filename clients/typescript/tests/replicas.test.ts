// When calls are repeated.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { TodoService } from "../gen/todo/v1/todo_pb.js";
import { overReplicas } from "../src/replicas.js";

/** A replica that does what it is told, and counts. */
function replica() {
  const state = { fails: true, calls: 0 };
  const unary = (): Promise<never> => {
    state.calls++;
    if (state.fails) return Promise.reject(new ConnectError("gone", Code.Unavailable));
    return Promise.resolve({} as never);
  };
  const transport = { unary } as unknown as Transport;
  return { state, transport };
}

const read = (transport: Transport, signal?: AbortSignal) =>
  transport.unary(TodoService.method.getTodo, signal, undefined, undefined, {});

test("retries stop while most calls fail", async () => {
  const { state, transport } = replica();
  const all = overReplicas(() => Promise.resolve([transport]));
  await Promise.all(Array.from({ length: 200 }, () => assert.rejects(read(all))));
  // Without a throttle 800; at 50 failures of a bucket of 100 no call is repeated any more.
  assert(state.calls < 300, `${state.calls} attempts`);
  // Half a bucket later, they are repeated again.
  state.fails = false;
  for (let call = 0; call < 1100; call++) await read(all);
  [state.fails, state.calls] = [true, 0];
  await assert.rejects(read(all));
  assert.equal(state.calls, 4);
});

test("a call that its caller ends is not repeated", async () => {
  const { state, transport } = replica();
  await assert.rejects(read(overReplicas(() => Promise.resolve([transport])), AbortSignal.abort()));
  assert.equal(state.calls, 1);
});
