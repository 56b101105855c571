"""The client."""

from __future__ import annotations

import random
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from tidemark._errors import TodoError
from tidemark._mirror import DEFAULT_MAX_BYTES, Mirror
from tidemark._session import Session
from tidemark.gen.todo.v1 import todo_pb2 as pb
from tidemark.gen.todo.v1.todo_pb2_grpc import TodoServiceStub

DEFAULT_TIMEOUT = 5.0
"""Bounds a call that states no timeout, in seconds. The service stops working on a call
when its deadline passes."""

# The most todos that the service puts into a page.
MAX_PAGE_SIZE = 1000

# How long a write waits before it is repeated, in seconds: doubled each time, with jitter.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0

_OPTIONS = [
    # A replica that is frozen, or behind a dead link, closes no connection.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # By default gRPC resolves a name at most every 30 s. After a rollout the addresses of
    # all replicas are new, and clients must not wait that long for them.
    ("grpc.dns_min_time_between_resolutions_ms", 3_000),
    # gRPC's default of 120 s would outlast any restart of a replica.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


@dataclass(frozen=True)
class TLS:
    """Encrypts connections. Each file is PEM."""

    ca: str | Path | None = None
    """The authorities that sign the service's certificate. None: gRPC's own."""
    cert: str | Path | None = None
    """For mutual TLS, the client's certificate."""
    key: str | Path | None = None
    """For mutual TLS, its key."""
    server_name: str | None = None
    """The name in the service's certificate, if it is not the one in the address."""


def fully_consistent() -> pb.Consistency:
    """Makes a read reflect every write acknowledged before it began."""
    return pb.Consistency(fully_consistent=True)


def max_staleness(bound: timedelta) -> pb.Consistency:
    """Makes a read miss no write acknowledged longer ago than this."""
    consistency = pb.Consistency()
    consistency.max_staleness.FromTimedelta(bound)
    return consistency


def cached_only() -> pb.Consistency:
    """Makes a read fail rather than ask the database."""
    return pb.Consistency(cached_only=True)


class Client:
    """Calls the service over all replicas at these addresses: one gRPC target, which in a
    cluster is a name with all replicas (`dns:///tidemark-headless:50051`), or several
    `HOST:PORT`, as a list or separated by commas.

    It applies the published service config: round robin, health checks, retries of reads.
    Writes are repeated until the deadline as long as that cannot write twice. Calls raise
    TodoError. A client can be used by many threads.
    """

    def __init__(
        self,
        addresses: str | Iterable[str],
        *,
        timeout: float = DEFAULT_TIMEOUT,
        token: str = "",
        tls: TLS | None = None,
        bearer: str | Callable[[], str] | None = None,
    ) -> None:
        """`token` continues the session of another client or process. `bearer` is an API key
        or a JWT, or a function that returns one; use it with `tls`, since without TLS the
        network can read it."""
        replicas = addresses.split(",") if isinstance(addresses, str) else list(addresses)
        replicas = [address.strip() for address in replicas if address.strip()]
        if not replicas:
            raise ValueError("no address; want HOST:PORT, or several separated by commas")
        self._channel = _connect(replicas, tls)
        self._stub = TodoServiceStub(self._channel)
        self._timeout = timeout
        self._bearer = bearer
        self._session = Session(token)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the connections, also those of the client's other sessions."""
        self._channel.close()

    def new_session(self, token: str = "") -> Client:
        """A client with a session of its own over the same connections: for example one for
        each user of a program. `token` continues another session."""
        other = object.__new__(Client)
        other.__dict__ = {**self.__dict__, "_session": Session(token)}
        return other

    @property
    def token(self) -> str:
        """The newest token of the session, to continue it elsewhere; empty before the first
        call."""
        return self._session.token

    def observe(self, token: str) -> None:
        """Takes a token of another session into this one."""
        self._session.observe(token)

    def get_todo(
        self, name: str, *, consistency: pb.Consistency | None = None, timeout: float | None = None
    ) -> pb.GetTodoResponse:
        """Reads one todo. A consistency level replaces the session's."""
        return self.call("GetTodo", pb.GetTodoRequest(name=name, consistency=consistency), timeout=timeout)

    def batch_get_todos(
        self, names: Sequence[str], *, consistency: pb.Consistency | None = None, timeout: float | None = None
    ) -> pb.BatchGetTodosResponse:
        """Reads up to 1000 todos."""
        request = pb.BatchGetTodosRequest(names=names, consistency=consistency)
        return self.call("BatchGetTodos", request, timeout=timeout)

    def list_todos(
        self,
        parent: str,
        *,
        filter: str = "",
        order_by: str = "",
        page_size: int = MAX_PAGE_SIZE,
        consistency: pb.Consistency | None = None,
        timeout: float | None = None,
    ) -> Iterator[pb.Todo]:
        """Iterates over all todos of a list (`lists/{list}`), page by page. The timeout is
        for each page."""
        request = pb.ListTodosRequest(
            parent=parent, filter=filter, order_by=order_by, page_size=page_size, consistency=consistency
        )
        for page in self.pages(request, timeout=timeout):
            yield from page.todos

    def pages(self, request: pb.ListTodosRequest, *, timeout: float | None = None) -> Iterator[pb.ListTodosResponse]:
        """Iterates over the pages themselves, which also state how fresh they are and which
        todos cannot be read."""
        yield from self.all_pages("ListTodos", request, timeout=timeout)

    def all_pages(self, method: str, request: Any, *, timeout: float | None = None) -> Iterator[Any]:
        """Iterates over the pages of any method that has them, from the page token on."""
        request = _copy(request)
        while True:
            page = self.call(method, request, timeout=timeout)
            yield page
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def create_todo(self, parent: str, todo: pb.Todo, *, todo_id: str = "", timeout: float | None = None) -> pb.Todo:
        """Creates a todo in a list (`lists/{list}`)."""
        request = pb.CreateTodoRequest(parent=parent, todo=todo, todo_id=todo_id)
        return self.call("CreateTodo", request, timeout=timeout).todo

    def update_todo(
        self, todo: pb.Todo, fields: Sequence[str] = (), *, allow_missing: bool = False, timeout: float | None = None
    ) -> pb.Todo:
        """Writes the named fields of the todo, or those that are set. If the todo has an
        etag, it writes only if the etag matches."""
        request = pb.UpdateTodoRequest(todo=todo, allow_missing=allow_missing)
        if fields:
            request.update_mask.paths.extend(fields)
        return self.call("UpdateTodo", request, timeout=timeout).todo

    def delete_todo(
        self, name: str, *, etag: str = "", allow_missing: bool = False, timeout: float | None = None
    ) -> None:
        """Deletes a todo."""
        request = pb.DeleteTodoRequest(name=name, etag=etag, allow_missing=allow_missing)
        self.call("DeleteTodo", request, timeout=timeout)

    def get_todo_list(
        self, name: str, *, consistency: pb.Consistency | None = None, timeout: float | None = None
    ) -> pb.TodoList:
        """Reads one list: its title and its members."""
        request = pb.GetTodoListRequest(name=name, consistency=consistency)
        return self.call("GetTodoList", request, timeout=timeout).todo_list

    def list_todo_lists(
        self, *, consistency: pb.Consistency | None = None, timeout: float | None = None
    ) -> Iterator[pb.TodoList]:
        """Iterates over all lists that the caller may read, page by page."""
        request = pb.ListTodoListsRequest(page_size=MAX_PAGE_SIZE, consistency=consistency)
        for page in self.all_pages("ListTodoLists", request, timeout=timeout):
            yield from page.todo_lists

    def create_todo_list(
        self, todo_list: pb.TodoList, *, todo_list_id: str = "", timeout: float | None = None
    ) -> pb.TodoList:
        """Creates a list. With authentication the caller becomes an owner."""
        request = pb.CreateTodoListRequest(todo_list=todo_list, todo_list_id=todo_list_id)
        return self.call("CreateTodoList", request, timeout=timeout).todo_list

    def update_todo_list(
        self, todo_list: pb.TodoList, fields: Sequence[str] = (), *, timeout: float | None = None
    ) -> pb.TodoList:
        """Writes the named fields of the list (`title`, `members`), or those that are set. If
        the list has an etag, it writes only if the etag matches."""
        request = pb.UpdateTodoListRequest(todo_list=todo_list)
        if fields:
            request.update_mask.paths.extend(fields)
        return self.call("UpdateTodoList", request, timeout=timeout).todo_list

    def delete_todo_list(
        self, name: str, *, etag: str = "", force: bool = False, timeout: float | None = None
    ) -> None:
        """Deletes a list. With its todos it does so only if `force` is set."""
        self.call("DeleteTodoList", pb.DeleteTodoListRequest(name=name, etag=etag, force=force), timeout=timeout)

    def mirror(
        self,
        parent: str,
        *,
        on_change: Callable[[str, pb.Todo | None], object] | None = None,
        on_ready: Callable[[], object] | None = None,
        on_stale: Callable[[TodoError | None], object] | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Mirror:
        """A mirror of a list (`lists/{list}`). Its `run`, or `with`, starts it."""
        return Mirror(self, parent, on_change, on_ready, on_stale, max_bytes)

    def watch(self, request: pb.WatchTodosRequest) -> Any:
        """The stream of WatchTodos as gRPC has it; it raises grpc.RpcError."""
        return self._stub.WatchTodos(request, metadata=self._metadata())

    def call(self, method: str, request: Message, *, timeout: float | None = None) -> Any:
        """Any unary method of the service by its name, with the same deadline, session,
        repetitions and errors."""
        stub = getattr(self._stub, method)
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        prepared, presented = _prepare(request, self.token)
        pause = FIRST_PAUSE
        while True:
            try:
                left = max(deadline - time.monotonic(), 0.0)
                reply = stub(prepared, timeout=left, metadata=self._metadata())
                self.observe(_token_of(reply))
                return reply
            except grpc.RpcError as error:
                failed = TodoError(error)
                self.observe(failed.metadata.get("token", ""))
                if failed.voids_token and presented:
                    self._session.forget(presented)
                wait = max(jitter(pause), failed.retry_after)
                if not _may_repeat(prepared, failed) or time.monotonic() + wait > deadline:
                    raise failed from error
            time.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _metadata(self) -> list[tuple[str, str]]:
        if self._bearer is None:
            return []
        credential = self._bearer if isinstance(self._bearer, str) else self._bearer()
        return [("authorization", f"Bearer {credential}")]


def jitter(pause: float) -> float:
    return pause * random.uniform(0.5, 1.0)


def _connect(replicas: list[str], tls: TLS | None) -> grpc.Channel:
    config = resources.files("tidemark").joinpath("service_config.json").read_text("utf-8")
    options: list[tuple[str, Any]] = [("grpc.service_config", config), *_OPTIONS]
    target = replicas[0]
    if len(replicas) > 1:
        target = _target(replicas)
        # Else it would be made of all addresses, which HTTP/2 does not allow.
        name = _host_and_port(replicas[0])[0] if tls else "todos"
        options.append(("grpc.default_authority", name))
    if tls is None:
        return grpc.insecure_channel(target, options=options)
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    files = [Path(file).read_bytes() if file else None for file in (tls.ca, tls.key, tls.cert)]
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(*files), options=options)


def _host_and_port(address: str) -> tuple[str, str]:
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdigit():
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host.strip("[]"), port


def _target(replicas: list[str]) -> str:
    """Several addresses as one target. gRPC takes only IP addresses there: names are
    resolved once, here. A name that moves is one for a target alone."""
    found: list[tuple[Any, str]] = []
    for host, port in map(_host_and_port, replicas):
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, where = min(resolved, key=lambda one: one[0] != socket.AF_INET)
        shown = f"[{where[0]}]" if family == socket.AF_INET6 else str(where[0])
        found.append((family, f"{shown}:{port}"))
    families = {family for family, _ in found}
    if len(families) > 1:
        raise ValueError("the addresses mix IPv4 and IPv6; use one of the two")
    scheme = "ipv4:" if families == {socket.AF_INET} else "ipv6:"
    return scheme + ",".join(address for _, address in found)


def _copy(request: Any) -> Any:
    copied = type(request)()
    copied.CopyFrom(request)
    return copied


def _prepare(request: Any, token: str) -> tuple[Any, str]:
    """A copy of the request with the session's token, if the request states no level, and
    with a request id; and the token that it presents. The caller's message stays as it is."""
    fields = request.DESCRIPTOR.fields_by_name
    copied, presented = _copy(request), ""
    if "consistency" in fields and token and not request.HasField("consistency"):
        presented = copied.consistency.at_least_as_fresh = token
    if "request_id" in fields and not request.request_id:
        copied.request_id = str(uuid.uuid4())
    return copied, presented


def _token_of(reply: Any) -> str:
    """The token of an answer: of a write in `token`, of a read in `read.token`."""
    fields = reply.DESCRIPTOR.fields_by_name
    if "read" in fields:
        return str(reply.read.token)
    return str(reply.token) if "token" in fields else ""


def _may_repeat(request: Message, failed: TodoError) -> bool:
    """Whether a call may be sent again. Reads are repeated by the service config on UNAVAILABLE;
    some transports have other codes for a broken connection, without a reason. With a
    request id the service writes once, however often it is asked."""
    broken = failed.reason == "" and failed.code in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
    fields = request.DESCRIPTOR.fields_by_name
    if "consistency" in fields:
        return broken
    if "request_id" in fields:
        return broken or failed.code == grpc.StatusCode.UNAVAILABLE or failed.reason == "WRITE_OUTCOME_UNKNOWN"
    return failed.had_no_effect
