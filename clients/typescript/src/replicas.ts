// One transport over all replicas. Connect knows no service config: what
// service_config.json says is done here, but for its health checks.

import type { Transport } from "@connectrpc/connect";
import config from "../gen/service_config.json" with { type: "json" };
import { isLost } from "./errors.js";

/** How long a call of this program may take. The service gives up when the caller does. */
export const CALL_TIMEOUT_MS = 5000;

/** How long a replica that lost a call is passed by. */
const PASSED_BY_MS = 1000;

/** What the service config says of some methods. */
interface MethodConfig {
  name: { method: string }[];
  timeout?: string;
  retryPolicy?: {
    maxAttempts: number;
    initialBackoff: string;
    maxBackoff: string;
    backoffMultiplier: number;
  };
}

const methods: readonly MethodConfig[] = config.methodConfig;

/** Each call goes to the next replica, by those that were lost a moment ago. */
export function overReplicas(replicas: readonly Transport[]): Transport {
  const lostUntil = replicas.map(() => 0);
  let last = -1;
  const next = (): [Transport, () => void] => {
    for (let passed = 0; passed < replicas.length; passed++) {
      last = (last + 1) % replicas.length;
      if ((lostUntil[last] ?? 0) <= performance.now()) break;
    }
    const [at, replica] = [last, replicas[last]];
    if (!replica) throw new RangeError("no replicas are given");
    return [replica, () => { lostUntil[at] = performance.now() + PASSED_BY_MS; }];
  };

  return {
    async unary(method, signal, timeoutMs, header, input, contextValues) {
      const { timeout, retryPolicy: retry } = methods.find((m) => m.name.some((n) => n.method === method.name)) ?? {};
      const limit = timeoutMs ?? (timeout === undefined ? undefined : milliseconds(timeout));
      const deadline = performance.now() + (limit ?? Infinity);
      for (let tries = 1; ; tries++) {
        const [replica, lose] = next();
        const left = limit === undefined ? undefined : Math.max(1, Math.ceil(deadline - performance.now()));
        try {
          return await replica.unary(method, signal, left, header, input, contextValues);
        } catch (error) {
          if (!isLost(error)) throw error;
          lose();
          if (!retry || tries === retry.maxAttempts) throw error;
          const backoff = milliseconds(retry.initialBackoff) * retry.backoffMultiplier ** (tries - 1);
          await pause(Math.random() * Math.min(backoff, milliseconds(retry.maxBackoff)));
        }
      }
    },

    async stream(method, signal, timeoutMs, header, input, contextValues) {
      const [replica, lose] = next();
      async function* guarded<T>(messages: AsyncIterable<T>) {
        try {
          yield* messages;
        } catch (error) {
          if (isLost(error)) lose();
          throw error;
        }
      }
      try {
        const response = await replica.stream(method, signal, timeoutMs, header, input, contextValues);
        return { ...response, message: guarded(response.message) };
      } catch (error) {
        if (isLost(error)) lose();
        throw error;
      }
    },
  };
}

/** A duration as service configs have it: "0.05s". */
function milliseconds(duration: string): number {
  return Number.parseFloat(duration) * 1000;
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
