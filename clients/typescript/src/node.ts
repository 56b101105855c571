// One client over all replicas, over gRPC from Node.

import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { TodoService } from "../gen/todo/v1/todo_pb.js";
import { overReplicas } from "./replicas.js";
import type { Todos } from "./write.js";

export function connect(addresses: readonly string[]): Todos {
  const replicas = addresses.map((address) =>
    createGrpcTransport({
      baseUrl: `http://${address}`,
      // A replica that is frozen, or behind a dead link, closes no connection.
      pingIntervalMs: 10_000,
      pingTimeoutMs: 5_000,
    }));
  return createClient(TodoService, overReplicas(replicas));
}
