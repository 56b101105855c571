// One transport over all replicas. Connect knows no service config: what service_config.json
// says is done here, except for its health checks.

import type { Transport } from "@connectrpc/connect";
import config from "../gen/service_config.js";
import { TodoError } from "./errors.js";

/** How long a replica that lost a call is avoided. */
const AVOIDED_MS = 1000;

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

/**
 * Stops retries while most calls fail, so that they do not double the load of replicas in trouble:
 * gRPC's retry throttling (gRFC A6).
 */
export class Throttle {
  readonly #maxTokens: number;
  readonly #tokenRatio: number;
  #tokens: number;

  constructor({ maxTokens, tokenRatio }: { maxTokens: number; tokenRatio: number } = config.retryThrottling) {
    this.#maxTokens = maxTokens;
    this.#tokenRatio = tokenRatio;
    this.#tokens = maxTokens;
  }

  succeeded(): void {
    this.#tokens = Math.min(this.#maxTokens, this.#tokens + this.#tokenRatio);
  }

  failed(): void {
    this.#tokens = Math.max(0, this.#tokens - 1);
  }

  get allowsRetry(): boolean {
    return this.#tokens > this.#maxTokens / 2;
  }
}

/** The replicas at this moment. */
export type Replicas = () => Promise<readonly Transport[]>;

/** Each call goes to the next replica, except to those that were lost a moment ago. */
export function overReplicas(replicas: Replicas): Transport {
  const lostUntil = new WeakMap<Transport, number>();
  const throttle = new Throttle();
  let last = -1;
  const next = async (): Promise<[Transport, () => void]> => {
    const all = await replicas();
    let replica: Transport | undefined;
    for (let passed = 0; passed < all.length; passed++) {
      last = (last + 1) % all.length;
      replica = all[last];
      if (!replica || (lostUntil.get(replica) ?? 0) <= performance.now()) break;
    }
    if (!replica) throw new RangeError("there is no replica");
    const chosen = replica;
    return [chosen, () => lostUntil.set(chosen, performance.now() + AVOIDED_MS)];
  };

  return {
    async unary(method, signal, timeoutMs, header, input, contextValues) {
      const { timeout, retryPolicy: retry } = methods.find((m) => m.name.some((n) => n.method === method.name)) ?? {};
      const limit = timeoutMs ?? (timeout === undefined ? undefined : milliseconds(timeout));
      const deadline = performance.now() + (limit ?? Infinity);
      for (let tries = 1; ; tries++) {
        const [replica, lose] = await next();
        const left = limit === undefined ? undefined : Math.max(1, Math.ceil(deadline - performance.now()));
        try {
          const response = await replica.unary(method, signal, left, header, input, contextValues);
          throttle.succeeded();
          return response;
        } catch (error) {
          // A call that its caller ends says nothing about the replica.
          if (signal?.aborted || !TodoError.from(error).isLost) throw error;
          lose();
          throttle.failed();
          if (!retry || tries === retry.maxAttempts || !throttle.allowsRetry) throw error;
          const backoff = milliseconds(retry.initialBackoff) * retry.backoffMultiplier ** (tries - 1);
          await pause(Math.random() * Math.min(backoff, milliseconds(retry.maxBackoff)), signal);
        }
      }
    },

    async stream(method, signal, timeoutMs, header, input, contextValues) {
      const [replica, lose] = await next();
      async function* guarded<T>(messages: AsyncIterable<T>) {
        try {
          yield* messages;
        } catch (error) {
          if (TodoError.from(error).isLost) lose();
          throw error;
        }
      }
      try {
        const response = await replica.stream(method, signal, timeoutMs, header, input, contextValues);
        return { ...response, message: guarded(response.message) };
      } catch (error) {
        if (TodoError.from(error).isLost) lose();
        throw error;
      }
    },
  };
}

/** Addresses separated by commas. */
export function splitAddresses(addresses: string | readonly string[]): string[] {
  const all = typeof addresses === "string" ? addresses.split(",") : [...addresses];
  const found = all.map((address) => address.trim()).filter((address) => address !== "");
  if (found.length === 0) throw new RangeError("no address; want HOST:PORT, or several separated by commas");
  return found;
}

/** A duration as service configs have it: "0.05s". */
function milliseconds(duration: string): number {
  return Number.parseFloat(duration) * 1000;
}

/** Waits, or until the signal. */
export function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      done();
    };
    const timer = setTimeout(end, milliseconds);
    if (signal?.aborted) end();
    else signal?.addEventListener("abort", end);
  });
}
