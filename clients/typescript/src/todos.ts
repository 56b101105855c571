// A client of the todo service to start from: each file shows one thing.
//
//   node.ts       one client over all replicas, from Node
//   replicas.ts   goes on to another replica; reads are tried again
//   tour.ts       each call once, with deadlines
//   write.ts      writes that may be tried again
//   errors.ts     errors told by their reason
//   mirror.ts     a list kept in a local map, through lost connections
//   ../web/       a page that uses the same files over grpc-web

import { ConnectError } from "@connectrpc/connect";
import { codeName, reasonName } from "./errors.js";
import { Mirror } from "./mirror.js";
import { connect } from "./node.js";
import { CALL_TIMEOUT_MS } from "./replicas.js";
import { tour } from "./tour.js";

const usage = `usage:
  todos get NAME ADDRESS...      reads one todo
  todos tour LIST ADDRESS...     shows each call once; two replicas or more
  todos mirror LIST ADDRESS...   follows a list until the end of its input`;

async function get(name: string, addresses: string[]): Promise<void> {
  const reply = await connect(addresses).getTodo({ name }, { timeoutMs: CALL_TIMEOUT_MS });
  console.log(reply.todo?.title);
}

async function mirror(parent: string, addresses: string[]): Promise<void> {
  const end = new AbortController();
  process.stdin.on("end", () => end.abort()).resume();
  const followed = new Mirror(connect(addresses), parent, (line) => console.log(line));
  await followed.run(end.signal);
  for (const name of [...followed.todos.keys()].sort()) {
    console.log(`has: ${name} ${followed.todos.get(name)?.title}`);
  }
}

const commands: Record<string, (what: string, addresses: string[]) => Promise<void>> = { get, tour, mirror };
const [command = "", what = "", ...addresses] = process.argv.slice(2);
const run = commands[command];
if (!run || addresses.length === 0) {
  console.error(usage);
  process.exit(2);
}
try {
  await run(what, addresses);
  // Idle connections would keep the process for a while.
  process.exit(0);
} catch (error) {
  if (!(error instanceof ConnectError)) throw error;
  console.error(`todos: ${codeName(error)} ${reasonName(error)}: ${error.rawMessage}`);
  process.exit(1);
}
