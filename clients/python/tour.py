"""Each call once, with deadlines, in a list of its own."""

import grpc

from connect import connect
from errors import why
from todo.v1 import todo_pb2 as pb
from todo.v1.todo_pb2_grpc import TodoServiceStub
from write import CALL_TIMEOUT, create, update


def tour(parent: str, addresses: list[str]) -> None:
    with connect(addresses) as channel:
        client = TodoServiceStub(channel)
        write_and_read(client, parent)
        list_in_pages(client, parent)
        read_many_times(client, parent)
        errors_by_reason(client, parent)
        too_short_a_deadline(client, parent)
    on_another_replica(parent, addresses)


def write_and_read(client: TodoServiceStub, parent: str) -> None:
    for title, priority in [
        ("Buy milk", pb.Todo.PRIORITY_NORMAL),
        ("Read a book", pb.Todo.PRIORITY_HIGH),
        ("Water the plants", pb.Todo.PRIORITY_URGENT),
    ]:
        last = create(client, parent, pb.Todo(title=title, priority=priority, labels=["tour"]))
    reply = client.GetTodo(
        pb.GetTodoRequest(name=last.todo.name, consistency=pb.Consistency(at_least_as_fresh=last.token)),
        timeout=CALL_TIMEOUT,
    )
    bound = reply.read.staleness_bound.ToTimedelta()
    print(f"get: {reply.todo.title}, from {pb.Source.Name(reply.read.source)}, misses nothing older than {bound}")


def list_in_pages(client: TodoServiceStub, parent: str) -> None:
    request = pb.ListTodosRequest(
        parent=parent,
        page_size=2,
        filter='state = ACTIVE AND labels:"tour"',
        order_by="priority desc",
        consistency=pb.Consistency(fully_consistent=True),
    )
    while True:
        page = client.ListTodos(request, timeout=CALL_TIMEOUT)
        for todo in page.todos:
            print(f"list: {pb.Todo.Priority.Name(todo.priority)} {todo.title}")
        request.page_token = page.next_page_token
        if not request.page_token:
            return


def read_many_times(client: TodoServiceStub, parent: str) -> None:
    """Goes round all replicas that are healthy."""
    for _ in range(20):
        client.ListTodos(pb.ListTodosRequest(parent=parent), timeout=CALL_TIMEOUT)
    print("read: 20 times")


def errors_by_reason(client: TodoServiceStub, parent: str) -> None:
    """Does what a program would do: chooses by the reason, not by the text."""
    created = create(client, parent, pb.Todo(title="Call home")).todo
    todo = pb.Todo(name=created.name, title="Call home at six", etag=created.etag)
    update(client, todo)
    try:
        update(client, todo)  # The etag is that of before the update.
    except grpc.RpcError as error:
        values = told(error, pb.ERROR_REASON_ETAG_MISMATCH)
        # With the refusal's token, the next read is not older than the refusal.
        consistency = pb.Consistency(at_least_as_fresh=values["token"])
        request = pb.GetTodoRequest(name=todo.name, consistency=consistency)
        now = client.GetTodo(request, timeout=CALL_TIMEOUT).todo
        print(f"refused: ERROR_REASON_ETAG_MISMATCH, it is now: {now.title}")
    try:
        client.GetTodo(pb.GetTodoRequest(name=f"{parent}/todos/none"), timeout=CALL_TIMEOUT)
    except grpc.RpcError as error:
        values = told(error, pb.ERROR_REASON_TODO_NOT_FOUND)
        print(f"refused: ERROR_REASON_TODO_NOT_FOUND, says {values['source']}")
    try:
        client.ListTodos(pb.ListTodosRequest(parent=parent, filter="colour = RED"), timeout=CALL_TIMEOUT)
    except grpc.RpcError as error:
        values = told(error, pb.ERROR_REASON_FILTER_INVALID)
        print(f"refused: ERROR_REASON_FILTER_INVALID at character {values['position']}")


def told(error: grpc.RpcError, expected: pb.ErrorReason) -> dict[str, str]:
    """The values of an error that has this reason; any other is raised again."""
    reason, values = why(error)
    if reason != expected:
        raise error
    return values


def too_short_a_deadline(client: TodoServiceStub, parent: str) -> None:
    try:
        client.ListTodos(pb.ListTodosRequest(parent=parent), timeout=1e-6)
    except grpc.RpcError as error:
        print(f"too short a deadline: {error.code().name}")


def on_another_replica(parent: str, addresses: list[str]) -> None:
    """Writes at the first replica and reads at the second. The token makes the
    second one wait until it has seen the write."""
    with connect(addresses[:1]) as first, connect(addresses[1:2]) as second:
        written = create(TodoServiceStub(first), parent, pb.Todo(title="Written at one replica"))
        consistency = pb.Consistency(at_least_as_fresh=written.token)
        request = pb.GetTodoRequest(name=written.todo.name, consistency=consistency)
        read = TodoServiceStub(second).GetTodo(request, timeout=CALL_TIMEOUT)
        print(f"at another replica: {read.todo.title}")
