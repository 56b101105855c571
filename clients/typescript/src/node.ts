// A client over gRPC, from Node.

import { lookup } from "node:dns/promises";
import type { SecureClientSessionOptions } from "node:http2";
import type { Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { Client, type ClientOptions } from "./client.js";
import { overReplicas, splitAddresses } from "./replicas.js";

export * from "./index.js";

/** After a rollout the addresses of all replicas are new: a name is looked up again so often. */
const RESOLUTION_MS = 3000;

/** A replica that is frozen, or behind a dead link, closes no connection. */
const PINGS = { pingIntervalMs: 10_000, pingTimeoutMs: 5_000 };

const TARGET = /^dns:(?:\/\/\/)?(.+):(\d+)$/;

export interface NodeOptions extends ClientOptions {
  /**
   * Encrypts connections. PEM: the authorities that sign the service's certificate (absent: those of
   * Node), and for mutual TLS the client's certificate and key.
   */
  tls?: Pick<SecureClientSessionOptions, "ca" | "cert" | "key" | "servername">;
}

/**
 * A client over all replicas at these addresses: `dns:///NAME:PORT`, a name with all replicas, or one
 * or several `HOST:PORT`, as an array or separated by commas.
 *
 * It applies the published service config: round robin and retries of reads. It avoids a replica that
 * lost a call for a second, in place of health checks.
 */
export function connect(addresses: string | readonly string[], options: NodeOptions = {}): Client {
  const replicas = new Addresses(splitAddresses(addresses), options.tls);
  return new Client(overReplicas(() => replicas.transports()), options, () => replicas.close());
}

/** One transport for each replica, as long as its address is known. */
class Addresses {
  #known = new Map<string, { transport: Transport; manager: Http2SessionManager }>();
  #resolved = -Infinity;
  #resolving: Promise<void> | undefined;
  readonly #given: readonly string[];
  readonly #tls: NodeOptions["tls"];

  constructor(given: readonly string[], tls: NodeOptions["tls"]) {
    this.#given = given;
    this.#tls = tls;
  }

  async transports(): Promise<readonly Transport[]> {
    const names = this.#given.some((address) => TARGET.test(address));
    if (this.#known.size === 0 || (names && performance.now() - this.#resolved > RESOLUTION_MS)) {
      this.#resolving ??= this.#resolve().finally(() => (this.#resolving = undefined));
      // A name that cannot be resolved now leaves the addresses that are known.
      await this.#resolving.catch((error: unknown) => {
        if (this.#known.size === 0) throw error;
      });
    }
    return [...this.#known.values()].map(({ transport }) => transport);
  }

  async #resolve(): Promise<void> {
    const found = new Map<string, string | undefined>();
    for (const address of this.#given) {
      const [, name, port] = TARGET.exec(address) ?? [];
      if (name === undefined) {
        found.set(address, undefined);
        continue;
      }
      for (const { address: ip, family } of await lookup(name, { all: true })) {
        found.set(family === 6 ? `[${ip}]:${port}` : `${ip}:${port}`, name);
      }
    }
    this.#resolved = performance.now();
    for (const address of this.#known.keys()) {
      // Calls that are under way on it end by themselves.
      if (!found.has(address)) this.#known.delete(address);
    }
    for (const [address, name] of found) {
      if (!this.#known.has(address)) this.#known.set(address, this.#open(address, name));
    }
  }

  #open(address: string, name: string | undefined): { transport: Transport; manager: Http2SessionManager } {
    const baseUrl = `${this.#tls ? "https" : "http"}://${address}`;
    const tls = this.#tls && { ...(name === undefined ? {} : { servername: name }), ...this.#tls };
    const manager = new Http2SessionManager(baseUrl, PINGS, tls);
    return { transport: createGrpcTransport({ baseUrl, sessionManager: manager }), manager };
  }

  close(): void {
    for (const { manager } of this.#known.values()) manager.abort();
  }
}
