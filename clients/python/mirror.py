"""A list kept in a local map, through lost connections."""

import threading
from collections.abc import Callable

import grpc

from errors import why
from todo.v1 import todo_pb2 as pb
from todo.v1.todo_pb2_grpc import TodoServiceStub
from write import CALL_TIMEOUT, FIRST_PAUSE

LONGEST_PAUSE = 2.0

# Trying a read again would be refused again.
LASTING = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
}
# The token is of another database, or of one restored to the past.
TOKEN_IS_VOID = {pb.ERROR_REASON_TOKEN_FOREIGN, pb.ERROR_REASON_TOKEN_INVALID}


class Mirror:
    """Lists once, then watches from where the list ended. A lost connection
    costs nothing but time, since the watch goes on from the last token, on
    whatever replica answers."""

    def __init__(self, client: TodoServiceStub, parent: str, say: Callable[[str], None]):
        self._client = client
        self._parent = parent
        self._say = say
        self._todos: dict[str, pb.Todo] = {}
        self._token = ""  # Empty: all must be listed anew.
        self._floor = ""  # What the next listing must not be older than.
        self._ended = threading.Event()
        self._stream: grpc.Call | None = None

    def todos(self) -> list[pb.Todo]:
        """The map as it is now, sorted by name."""
        return [todo for _, todo in sorted(self._todos.copy().items())]

    def end(self) -> None:
        """Ends `run`, from another thread."""
        self._ended.set()
        if self._stream:
            self._stream.cancel()

    def run(self) -> None:
        """Follows the list until its end, or raises what makes no sense to try again."""
        pause = FIRST_PAUSE
        while not self._ended.is_set():
            before = self._token
            try:
                self._follow()
            except grpc.RpcError as error:
                if self._ended.is_set():
                    return
                reason, _ = why(error)
                if reason in TOKEN_IS_VOID:
                    self._token = self._floor = ""
                elif error.code() in LASTING:
                    raise
                self._say(f"lost: {error.code().name} {pb.ErrorReason.Name(reason)}")
            if self._token != before:
                pause = FIRST_PAUSE
            self._ended.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _follow(self) -> None:
        """Lists if it must, then watches until the stream ends."""
        if not self._token:
            self._list()
        # The one call without a deadline: it is meant to last.
        self._stream = self._client.WatchTodos(
            pb.WatchTodosRequest(parent=self._parent, after=self._token, include_todo=True)
        )
        if self._ended.is_set():
            self._stream.cancel()
        following = False
        for message in self._stream:
            if not following:
                self._say("following")
                following = True
            self._token = message.token
            match message.WhichOneof("event"):
                case "change":
                    self._apply(message.change)
                case "reset":
                    self._say(f"reset: {message.reset.reason}")
                    self._token, self._floor = "", message.token
                    self._list()

    def _list(self) -> None:
        """Reads all pages. The token of the last is where the watch begins."""
        todos: dict[str, pb.Todo] = {}
        request = pb.ListTodosRequest(parent=self._parent, page_size=1000)
        if self._floor:
            request.consistency.at_least_as_fresh = self._floor
        while True:
            page = self._client.ListTodos(request, timeout=CALL_TIMEOUT)
            todos.update((todo.name, todo) for todo in page.todos)
            request.page_token = page.next_page_token
            if not request.page_token:
                self._todos, self._token = todos, page.read.token
                return

    def _apply(self, change: pb.TodoChange) -> None:
        """A change without its todo is of one that is gone by now, whatever its kind."""
        if change.HasField("todo"):
            self._todos[change.name] = change.todo
            self._say(f"put: {change.name} {change.todo.title}")
        else:
            self._todos.pop(change.name, None)
            self._say(f"gone: {change.name}")
