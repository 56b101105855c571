// A client over grpc-web, from a browser. The service must be set to allow the page's origin:
// --cors-allow-origins.

import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { Client, type ClientOptions } from "./client.js";
import { overReplicas, splitAddresses } from "./replicas.js";

export * from "./index.js";

/**
 * A client over all replicas at these addresses: one or several URLs, as an array or separated by
 * commas. `HOST:PORT` stands for `http://HOST:PORT`.
 *
 * It applies the published service config: round robin and retries of reads. It avoids a replica that
 * lost a call for a second, in place of health checks.
 */
export function connect(addresses: string | readonly string[], options: ClientOptions = {}): Client {
  const transports = splitAddresses(addresses).map((address) =>
    createGrpcWebTransport({ baseUrl: address.includes("://") ? address : `http://${address}` }));
  return new Client(overReplicas(async () => transports), options);
}
