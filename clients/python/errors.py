"""Errors told by their reason."""

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from todo.v1 import todo_pb2 as pb


def why(error: grpc.RpcError) -> tuple[pb.ErrorReason, dict[str, str]]:
    """What the service says of an error, and its values. An error that the
    service did not make, a lost connection say, has no reason."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = ErrorInfo()
        if detail.Unpack(info) and info.domain == "todo.v1":
            reason = "ERROR_REASON_" + info.reason
            if reason in pb.ErrorReason.keys():
                return pb.ErrorReason.Value(reason), dict(info.metadata)
    return pb.ERROR_REASON_UNSPECIFIED, {}


def had_no_effect(error: grpc.RpcError) -> bool:
    """Whether a write that failed surely changed nothing. UNAVAILABLE promises
    so when the service says it; but the client's own transport says UNAVAILABLE
    too, when a connection is lost after the request went out."""
    return error.code() == grpc.StatusCode.UNAVAILABLE and why(error)[0] != pb.ERROR_REASON_UNSPECIFIED
