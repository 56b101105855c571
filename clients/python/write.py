"""Writes that may be tried again."""

import time
import uuid
from collections.abc import Callable
from typing import TypeVar

import grpc

from errors import had_no_effect
from todo.v1 import todo_pb2 as pb
from todo.v1.todo_pb2_grpc import TodoServiceStub

# How long any call but a watch may take, in seconds. The service hands what is
# left of it down to Redis and MongoDB, and gives up when the caller does.
CALL_TIMEOUT = 5.0

FIRST_PAUSE = 0.05

Reply = TypeVar("Reply")


def create(client: TodoServiceStub, parent: str, todo: pb.Todo) -> pb.CreateTodoResponse:
    """Creates a todo once, however often it has to ask. The service config does
    not retry writes, because it cannot know what is known here: the request has
    an id, and with the same id the service never writes twice."""
    request = pb.CreateTodoRequest(parent=parent, todo=todo, request_id=str(uuid.uuid4()))
    return _until_done(
        lambda timeout: client.CreateTodo(request, timeout=timeout),
        lambda error: error.code() == grpc.StatusCode.UNAVAILABLE,
    )


def update(client: TodoServiceStub, todo: pb.Todo) -> pb.UpdateTodoResponse:
    """Writes the fields that are set, if the todo still is as its etag says. It
    has no request id: another try is safe only if the first had no effect."""
    request = pb.UpdateTodoRequest(todo=todo)
    return _until_done(lambda timeout: client.UpdateTodo(request, timeout=timeout), had_no_effect)


def _until_done(call: Callable[[float], Reply], may_try_again: Callable[[grpc.RpcError], bool]) -> Reply:
    pause, deadline = FIRST_PAUSE, time.monotonic() + CALL_TIMEOUT
    while True:
        try:
            return call(deadline - time.monotonic())
        except grpc.RpcError as error:
            if not may_try_again(error) or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause *= 2
