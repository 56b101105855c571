"""An example client of the todo service: each command shows a part of the library."""

import sys
import threading

from tidemark import Client, Todo, TodoError
from tour import tour

USAGE = """usage:
  todos.py get NAME ADDRESS...      reads one todo
  todos.py tour LIST ADDRESS...     shows each call once
  todos.py mirror LIST ADDRESS...   follows a list until the end of its input"""


def get(client: Client, name: str, addresses: list[str]) -> None:
    print(client.get_todo(name).todo.title)


def mirror(client: Client, parent: str, addresses: list[str]) -> None:
    def say(line: str) -> None:
        print(line, flush=True)

    def on_change(name: str, todo: Todo | None) -> None:
        say(f"put: {name} {todo.title}" if todo else f"gone: {name}")

    followed = client.mirror(
        parent,
        on_change=on_change,
        on_ready=lambda: say("following"),
        on_stale=lambda error: say(f"lost: {describe(error)}" if error else "reset"),
    )

    def until_the_end_of_input() -> None:
        sys.stdin.read()
        followed.close()

    threading.Thread(target=until_the_end_of_input, daemon=True).start()
    followed.run()
    for todo in followed.todos:
        print(f"has: {todo.name} {todo.title}")


def describe(error: TodoError) -> str:
    """Chooses by the code and the reason. The message is for people."""
    return f"{error.code.name} ERROR_REASON_{error.reason or 'UNSPECIFIED'}"


def main(args: list[str]) -> int:
    commands = {"get": get, "tour": tour, "mirror": mirror}
    if len(args) < 3 or args[0] not in commands:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        with Client(args[2:]) as client:
            commands[args[0]](client, args[1], args[2:])
    except TodoError as error:
        print(f"todos.py: {describe(error)}: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
