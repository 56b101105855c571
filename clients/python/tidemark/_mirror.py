"""A list kept in memory."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from tidemark._errors import TodoError
from tidemark._session import Session
from tidemark.gen.todo.v1 import todo_pb2 as pb

if TYPE_CHECKING:
    from tidemark._client import Client

DEFAULT_MAX_BYTES = 64 << 20
"""Bounds a mirror by the encoded size of its todos."""

# The service sends a message at least this often, in seconds. After three times as long
# without one, the replica counts as lost.
_PROGRESS_SECONDS = 5
_LONGEST_SILENCE = 3 * _PROGRESS_SECONDS

# How long to wait after a lost connection, in seconds: doubled each time, with jitter.
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0

# The same call would fail again.
_LASTING = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.PERMISSION_DENIED,
}


class MirrorTooLarge(Exception):
    """The list has more bytes than the mirror may hold."""


class Mirror:
    """Keeps a list in memory. It lists once, then watches from where the list ended. After a
    lost connection the watch goes on from the last token, on whatever replica answers; after
    a reset the mirror lists anew, not older than what it showed. It never shows a todo in a
    state older than one that it showed before, unless the database itself was replaced.

    `on_change(name, todo)` is called for each todo that is new or changed, and with None for
    each that is gone; `on_ready()` when the mirror follows the list; `on_stale(error)` when it
    stops to: a lost connection, a draining replica, a reset (then the error is None). It
    recovers by itself. Callbacks run one at a time in the thread of `run`, after the change.
    """

    def __init__(
        self,
        client: Client,
        parent: str,
        on_change: Callable[[str, pb.Todo | None], object] | None,
        on_ready: Callable[[], object] | None,
        on_stale: Callable[[TodoError | None], object] | None,
        max_bytes: int,
    ) -> None:
        self._client, self._parent, self._max_bytes = client, parent, max_bytes
        self._on_change, self._on_ready, self._on_stale = on_change, on_ready, on_stale
        self._lock = threading.Lock()
        self._todos: dict[str, pb.Todo] = {}
        self._bytes = 0
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._stream: grpc.Call | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        # Of the thread of `run`. Empty: all must be listed anew.
        self._token = ""
        # The newest state shown: no listing may be older.
        self._shown = Session()

    def __enter__(self) -> Mirror:
        """Runs the mirror in a thread."""
        self._thread = threading.Thread(target=self._run_in_thread, name="mirror", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        """Ends the mirror, and raises the error that ended its thread before."""
        self.close()
        if self._thread:
            self._thread.join()
        if self._error and raised[0] is None:
            raise self._error

    @property
    def todos(self) -> list[pb.Todo]:
        """The list as it is now, sorted by name. The todos are shared: do not change them."""
        with self._lock:
            return [todo for _, todo in sorted(self._todos.items())]

    def get(self, name: str) -> pb.Todo | None:
        """One todo as it is now."""
        with self._lock:
            return self._todos.get(name)

    @property
    def ready(self) -> bool:
        """Whether the mirror follows the list at this moment."""
        return self._ready.is_set() and self._error is None

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Waits until the mirror follows the list; False after the timeout, in seconds.
        Raises the error that ended the mirror's thread."""
        self._ready.wait(timeout)
        if self._error:
            raise self._error
        return self.ready

    def close(self) -> None:
        """Ends `run`, from any thread."""
        self._ended.set()
        stream = self._stream
        if stream:
            stream.cancel()

    def run(self) -> None:
        """Follows the list until `close`, or raises what no repetition can resolve: an invalid
        name, a missing permission, a list that is too large."""
        try:
            self._run()
        finally:
            self._ready.clear()

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._ended.is_set():
            before, failed = self._token, None
            try:
                self._follow()
            except grpc.RpcError as error:
                failed = TodoError(error)
            except TodoError as error:
                failed = error
            if self._ended.is_set():
                return
            moved = self._token != before
            if failed:
                self._check(failed, moved)
            self._becomes_stale(failed)
            if moved:
                pause = _FIRST_PAUSE
            if failed:
                self._ended.wait(max(pause * random.uniform(0.5, 1.0), failed.retry_after))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _run_in_thread(self) -> None:
        try:
            self.run()
        except BaseException as error:
            self._error = error
            # Wakes who waits for it.
            self._ready.set()

    def _check(self, failed: TodoError, moved: bool) -> None:
        """Raises an error that would come again. A credential that expired during a watch is
        not one: the next call has a new one."""
        if failed.voids_token:
            # Of another database, or of one restored to the past.
            self._token, self._shown = "", Session()
        elif failed.code in _LASTING or (failed.code == grpc.StatusCode.UNAUTHENTICATED and not moved):
            raise failed

    def _follow(self) -> None:
        """Lists if it must, then watches until the stream ends. Returns after a reset."""
        if not self._token:
            self._list()
        request = pb.WatchTodosRequest(parent=self._parent, after=self._token, include_todo=True)
        request.progress_interval.seconds = _PROGRESS_SECONDS
        # The one call without a deadline: it is meant to last.
        stream = self._client.watch(request)
        self._stream = stream
        if self._ended.is_set():
            stream.cancel()
        with _Silence(stream) as silence:
            for message in stream:
                silence.ends()
                if self._take(message):
                    stream.cancel()
                    return

    def _take(self, message: pb.WatchTodosResponse) -> bool:
        """Applies one message, and then advances the token. True if the list must be read
        again: what the stream still holds may be older than that listing."""
        self._shown.observe(message.token)
        event = message.WhichOneof("event")
        if event == "reset":
            self._token = ""
            return True
        if event == "change":
            self._change(message.change, message.token)
        self._token = message.token
        self._client.observe(message.token)
        if not self._ready.is_set():
            self._ready.set()
            if self._on_ready:
                self._on_ready()
        return False

    def _change(self, change: pb.TodoChange, token: str) -> None:
        """Applies one change. Without its todo it is of one that is gone, or that the service
        could not read in time: only a deletion says which."""
        todo = change.todo if change.HasField("todo") else None
        if todo is None and change.kind != pb.TodoChange.KIND_DELETED:
            try:
                reply = self._client.get_todo(change.name, consistency=pb.Consistency(at_least_as_fresh=token))
                todo = reply.todo
                self._shown.observe(reply.read.token)
            except TodoError as error:
                if error.reason not in ("TODO_NOT_FOUND", "TODO_UNREADABLE"):
                    raise
                self._shown.observe(error.metadata.get("token", ""))
        self._put(change.name, todo)

    def _list(self) -> None:
        """Reads all pages. The token of the last is where the watch begins."""
        todos: dict[str, pb.Todo] = {}
        size, token = 0, ""
        request = pb.ListTodosRequest(parent=self._parent, page_size=1000)
        # Not older than what the mirror showed, and what the client wrote and read.
        newest = Session(self._client.token)
        newest.observe(self._shown.token)
        if newest.token:
            request.consistency.at_least_as_fresh = newest.token
        for page in self._client.pages(request):
            for todo in page.todos:
                todos[todo.name] = todo
                size += todo.ByteSize()
            self._check_size(size)
            token = page.read.token
            self._shown.observe(token)
            if self._ended.is_set():
                return
        self._replace(todos, size)
        self._token = token

    def _replace(self, todos: dict[str, pb.Todo], size: int) -> None:
        """Shows a listing, and reports how it differs from what was shown."""
        with self._lock:
            before, self._todos, self._bytes = self._todos, todos, size
            listed = dict(todos)
        if self._on_change:
            for name in before.keys() - listed.keys():
                self._on_change(name, None)
            for name, todo in listed.items():
                if before.get(name) != todo:
                    self._on_change(name, todo)

    def _put(self, name: str, todo: pb.Todo | None) -> None:
        """Shows one todo, or that it is gone."""
        with self._lock:
            was = self._todos.pop(name, None)
            self._bytes -= was.ByteSize() if was else 0
            if todo is not None:
                self._todos[name] = todo
                self._bytes += todo.ByteSize()
        if self._on_change and was != todo:
            self._on_change(name, todo)
        self._check_size(self._bytes)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise MirrorTooLarge(f"{self._parent} has more than {self._max_bytes} bytes; raise max_bytes")

    def _becomes_stale(self, failed: TodoError | None) -> None:
        """Marks the mirror. Before it followed, only an error is reported."""
        was = self._ready.is_set()
        self._ready.clear()
        if (was or failed) and self._on_stale:
            self._on_stale(failed)


class _Silence:
    """Cancels a stream that has had no message for too long."""

    def __init__(self, stream: grpc.Call) -> None:
        self._stream = stream
        self._heard = time.monotonic()
        self._timer = self._arm(_LONGEST_SILENCE)

    def _arm(self, seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, self._check)
        timer.daemon = True
        timer.start()
        return timer

    def _check(self) -> None:
        left = self._heard + _LONGEST_SILENCE - time.monotonic()
        if left > 0:
            self._timer = self._arm(left)
        else:
            self._stream.cancel()

    def ends(self) -> None:
        self._heard = time.monotonic()

    def __enter__(self) -> _Silence:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
