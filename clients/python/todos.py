"""A client of the todo service to start from: each file shows one thing.

connect.py   one channel over all replicas, by the published service config
tour.py      each call once, with deadlines
write.py     writes that may be tried again
errors.py    errors told by their reason
mirror.py    a list kept in a local map, through lost connections
"""

import sys
import threading
from pathlib import Path

# The generated code is a package of its own beside these files.
sys.path.insert(0, str(Path(__file__).parent / "gen"))

import grpc

from connect import connect
from errors import why
from mirror import Mirror
from todo.v1 import todo_pb2 as pb
from todo.v1.todo_pb2_grpc import TodoServiceStub
from tour import tour
from write import CALL_TIMEOUT

USAGE = """usage:
  todos.py get NAME ADDRESS...      reads one todo
  todos.py tour LIST ADDRESS...     shows each call once; two replicas or more
  todos.py mirror LIST ADDRESS...   follows a list until the end of its input"""


def get(name: str, addresses: list[str]) -> None:
    with connect(addresses) as channel:
        reply = TodoServiceStub(channel).GetTodo(pb.GetTodoRequest(name=name), timeout=CALL_TIMEOUT)
        print(reply.todo.title)


def mirror(parent: str, addresses: list[str]) -> None:
    with connect(addresses) as channel:
        followed = Mirror(TodoServiceStub(channel), parent, lambda line: print(line, flush=True))

        def until_the_end_of_input() -> None:
            sys.stdin.read()
            followed.end()

        threading.Thread(target=until_the_end_of_input, daemon=True).start()
        followed.run()
    for todo in followed.todos():
        print(f"has: {todo.name} {todo.title}")


def main(args: list[str]) -> int:
    commands = {"get": get, "tour": tour, "mirror": mirror}
    if len(args) < 3 or args[0] not in commands:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        commands[args[0]](args[1], args[2:])
    except grpc.RpcError as error:
        reason = pb.ErrorReason.Name(why(error)[0])
        print(f"todos.py: {error.code().name} {reason}: {error.details()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
