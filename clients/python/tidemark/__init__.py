"""A client of the todo service.

A Client is one session: each read is at least as fresh as everything that the session
has written and read before, on whatever replica answers.
"""

from tidemark._client import DEFAULT_TIMEOUT, TLS, Client, cached_only, fully_consistent, max_staleness
from tidemark._errors import FieldProblem, TodoError
from tidemark._mirror import DEFAULT_MAX_BYTES, Mirror, MirrorTooLarge
from tidemark.gen.todo.v1 import todo_pb2 as pb
from tidemark.gen.todo.v1.todo_pb2 import Todo, TodoList

__all__ = [
    "DEFAULT_MAX_BYTES",
    "DEFAULT_TIMEOUT",
    "TLS",
    "Client",
    "FieldProblem",
    "Mirror",
    "MirrorTooLarge",
    "Todo",
    "TodoError",
    "TodoList",
    "cached_only",
    "fully_consistent",
    "max_staleness",
    "pb",
]
