"""Many watchers of one list in one process, each on a connection by itself: a load for tests.

Each keeps the etags of the todos and lists them again after a reset."""

import sys
import threading
import time

import grpc

from tidemark.gen.todo.v1 import todo_pb2, todo_pb2_grpc

# How long the watchers may take until they show what the service has, in seconds.
PATIENCE = 600
resets = 0
lost = 0


def list_etags(
    stub: todo_pb2_grpc.TodoServiceStub, parent: str, consistency: todo_pb2.Consistency | None = None
) -> tuple[dict[str, str], str]:
    """The etags of all todos, and a token that covers them."""
    etags, page = {}, ""
    while True:
        request = todo_pb2.ListTodosRequest(
            parent=parent, page_size=1000, page_token=page, consistency=consistency
        )
        reply = stub.ListTodos(request)
        # The same strings in all watchers.
        etags.update((sys.intern(todo.name), sys.intern(todo.etag)) for todo in reply.todos)
        page = reply.next_page_token
        if not page:
            return etags, reply.read.token


class Watcher(threading.Thread):
    def __init__(self, parent: str, address: str) -> None:
        super().__init__(daemon=True)
        channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        self.stub = todo_pb2_grpc.TodoServiceStub(channel)
        self.parent, self.etags, self.token = parent, {}, ""
        self.ready = threading.Event()

    def run(self) -> None:
        global lost
        while True:
            try:
                self.follow()
            except grpc.RpcError:
                lost += 1
                time.sleep(0.5)

    def follow(self) -> None:
        """Returns after a reset."""
        global resets
        if not self.token:
            self.etags, self.token = list_etags(self.stub, self.parent)
        request = todo_pb2.WatchTodosRequest(parent=self.parent, after=self.token, include_todo=True)
        stream = self.stub.WatchTodos(request)
        for message in stream:
            self.ready.set()
            event = message.WhichOneof("event")
            if event == "reset":
                resets += 1
                self.token = ""
                stream.cancel()
                return
            if event == "change":
                change = message.change
                if change.HasField("todo"):
                    self.etags[sys.intern(change.name)] = sys.intern(change.todo.etag)
                else:
                    self.etags.pop(change.name, None)
            self.token = message.token


def main(parent: str, count: int, address: str) -> None:
    watchers = [Watcher(parent, address) for _ in range(count)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.ready.wait()
    print("following", flush=True)
    sys.stdin.readline()  # The import has ended.
    began = time.monotonic()
    strong = todo_pb2.Consistency(fully_consistent=True)
    while True:
        try:
            truth, _ = list_etags(watchers[0].stub, parent, strong)
            right = sum(watcher.etags == truth for watcher in watchers)
        except grpc.RpcError as error:
            print(f"the list failed: {error.code()} {error.details()}", flush=True)
            right = 0
        took = time.monotonic() - began
        if right == count or took > PATIENCE:
            print(
                f"right: {right} of {count} with {len(truth)} todos after {took:.1f} s, {resets} resets, {lost} lost",
                flush=True,
            )
            return
        time.sleep(1)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: watchers.py LIST COUNT ADDRESS")
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
