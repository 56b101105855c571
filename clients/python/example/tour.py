"""Each call once. What it creates it deletes at its end."""

from tidemark import Client, Todo, TodoError, fully_consistent, pb


def tour(client: Client, parent: str, addresses: list[str]) -> None:
    created: list[str] = []
    try:
        write_and_read(client, parent, created)
        list_in_pages(client, parent)
        read_many_times(client, parent)
        errors_by_reason(client, parent, created)
        too_short_a_deadline(client, parent)
        on_another_replica(parent, addresses)
    finally:
        for name in created:
            client.delete_todo(name)


def write_and_read(client: Client, parent: str, names: list[str]) -> None:
    for title, priority in [
        ("Buy milk", Todo.PRIORITY_NORMAL),
        ("Read a book", Todo.PRIORITY_HIGH),
        ("Water the plants", Todo.PRIORITY_URGENT),
    ]:
        last = client.create_todo(parent, Todo(title=title, priority=priority, labels=["tour"]))
        names.append(last.name)
    # The session carries the token of the write: this read cannot miss it.
    reply = client.get_todo(last.name)
    bound = reply.read.staleness_bound.ToTimedelta()
    print(f"get: {reply.todo.title}, from {pb.Source.Name(reply.read.source)}, misses nothing older than {bound}")


def list_in_pages(client: Client, parent: str) -> None:
    found = client.list_todos(
        parent,
        page_size=2,
        filter='state = ACTIVE AND labels:"tour"',
        order_by="priority desc",
        consistency=fully_consistent(),
    )
    for todo in found:
        print(f"list: {Todo.Priority.Name(todo.priority)} {todo.title}")


def read_many_times(client: Client, parent: str) -> None:
    """Goes round all replicas that are healthy."""
    for _ in range(20):
        list(client.list_todos(parent))
    print("read: 20 times")


def errors_by_reason(client: Client, parent: str, names: list[str]) -> None:
    """Does what a program would do: chooses by the reason, not by the text."""
    created = client.create_todo(parent, Todo(title="Call home"))
    names.append(created.name)
    todo = Todo(name=created.name, title="Call home at six", etag=created.etag)
    client.update_todo(todo)
    try:
        client.update_todo(todo)  # The etag is that of before the update.
    except TodoError as error:
        expect(error, "ETAG_MISMATCH")
        # The session has the refusal's token: this read is not older than the refusal.
        print(f"refused: ERROR_REASON_ETAG_MISMATCH, it is now: {client.get_todo(todo.name).todo.title}")
    try:
        client.get_todo(f"{parent}/todos/none")
    except TodoError as error:
        expect(error, "TODO_NOT_FOUND")
        print(f"refused: ERROR_REASON_TODO_NOT_FOUND, says {error.metadata['source']}")
    try:
        list(client.list_todos(parent, filter="colour = RED"))
    except TodoError as error:
        expect(error, "FILTER_INVALID")
        print(f"refused: ERROR_REASON_FILTER_INVALID at character {error.metadata['position']}")


def expect(error: TodoError, reason: str) -> None:
    """Raises any other error again."""
    if error.reason != reason:
        raise error


def too_short_a_deadline(client: Client, parent: str) -> None:
    try:
        client.get_todo(f"{parent}/todos/none", consistency=fully_consistent(), timeout=1e-6)
    except TodoError as error:
        print(f"too short a deadline: {error.code.name}")


def on_another_replica(parent: str, addresses: list[str]) -> None:
    """Writes at one replica and reads at the next, if there are two. The token makes the
    second one wait until it has seen the write."""
    with Client(addresses[0]) as first:
        written = first.create_todo(parent, Todo(title="Written at one replica"))
        with Client(addresses[1 % len(addresses)], token=first.token) as second:
            print(f"at another replica: {second.get_todo(written.name).todo.title}")
        first.delete_todo(written.name)
