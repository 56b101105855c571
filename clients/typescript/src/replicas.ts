// One transport over all replicas. Connect knows no service config: what
// service_config.json says to other clients is said here in code.

import type { Transport } from "@connectrpc/connect";
import { isLost } from "./errors.js";

/** How long any call but a watch may take. The service gives up when the caller does. */
export const CALL_TIMEOUT_MS = 5000;

const MOST_TRIES = 4;
const FIRST_PAUSE_MS = 50;

/** Calls without effect: a lost one may be made again. */
const READS = ["GetTodo", "BatchGetTodos", "ListTodos"];

/** Stays with one replica, and goes on to the next when it is lost. */
export function overReplicas(replicas: readonly Transport[]): Transport {
  let at = 0;
  const current = (): Transport => {
    const replica = replicas[at % replicas.length];
    if (!replica) throw new RangeError("no replicas are given");
    return replica;
  };
  // Of several calls that a replica loses, only the first moves on.
  const lose = (replica: number) => {
    if (replica === at) at++;
  };

  return {
    async unary(method, signal, timeoutMs, header, input, contextValues) {
      const deadline = performance.now() + (timeoutMs ?? CALL_TIMEOUT_MS);
      for (let tries = 1; ; tries++) {
        const [replica, left] = [at, Math.max(1, Math.ceil(deadline - performance.now()))];
        try {
          return await current().unary(method, signal, left, header, input, contextValues);
        } catch (error) {
          if (!isLost(error)) throw error;
          lose(replica);
          if (tries === MOST_TRIES || !READS.includes(method.name)) throw error;
        }
        await pause(Math.random() * FIRST_PAUSE_MS * 3 ** (tries - 1));
      }
    },

    async stream(method, signal, timeoutMs, header, input, contextValues) {
      const replica = at;
      async function* guarded<T>(messages: AsyncIterable<T>) {
        try {
          yield* messages;
        } catch (error) {
          if (isLost(error)) lose(replica);
          throw error;
        }
      }
      try {
        const response = await current().stream(method, signal, timeoutMs, header, input, contextValues);
        return { ...response, message: guarded(response.message) };
      } catch (error) {
        if (isLost(error)) lose(replica);
        throw error;
      }
    },
  };
}

/** Waits, or until the signal. */
export function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(done, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      done();
    }, { once: true });
  });
}
