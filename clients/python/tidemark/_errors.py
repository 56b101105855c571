"""Errors with their reason."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_status import rpc_status

# The domain of the service's google.rpc.ErrorInfo.
_DOMAIN = "todo.v1"


@dataclass(frozen=True)
class FieldProblem:
    """One invalid field of a request."""

    field: str
    """Its path, such as `todo.title`."""
    description: str
    """What is wrong, and what would be right."""


class TodoError(Exception):
    """The error of every call that failed."""

    code: grpc.StatusCode
    """The status code of gRPC."""
    reason: str
    """Why: a value of ErrorReason without its prefix, such as `TODO_NOT_FOUND`. Empty if the
    error is not from the service: a lost connection, or a deadline that passed on the way."""
    message: str
    """For people."""
    metadata: dict[str, str]
    """The values that the message mentions, such as `token`."""
    fields: list[FieldProblem]
    """The fields of the request that are invalid."""
    retry_after: float
    """How long the service asks to wait, in seconds. 0: it does not say."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.code = error.code()
        self.message = error.details() or ""
        self.reason, self.metadata, self.fields, self.retry_after = "", {}, [], 0.0
        self._read_details(error)
        super().__init__(f"{self.code.name} {self.reason}".rstrip() + f": {self.message}")

    def _read_details(self, error: grpc.RpcError) -> None:
        try:
            status = rpc_status.from_call(error)
        except ValueError:  # The details are of another status.
            return
        for detail in status.details if status else ():
            info, request, retry = ErrorInfo(), BadRequest(), RetryInfo()
            if detail.Unpack(info) and info.domain == _DOMAIN:
                self.reason, self.metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(request):
                self.fields += [FieldProblem(one.field, one.description) for one in request.field_violations]
            elif detail.Unpack(retry):
                self.retry_after = retry.retry_delay.ToTimedelta().total_seconds()

    @property
    def had_no_effect(self) -> bool:
        """Whether a write that failed changed nothing for certain. UNAVAILABLE says so if it
        is from the service; gRPC itself reports UNAVAILABLE too when a connection is lost
        after the request was sent, and then the write may have been applied."""
        return self.code == grpc.StatusCode.UNAVAILABLE and self.reason != ""

    @property
    def voids_token(self) -> bool:
        """Whether the service refused the token that was presented."""
        return self.reason in ("TOKEN_FOREIGN", "TOKEN_INVALID")
