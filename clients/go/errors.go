package main

import (
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	todov1 "tidemark/gen/todo/v1"
)

// why tells what the service says of an error, and its values. An error that
// the service did not make, a lost connection say, has no reason.
func why(err error) (todov1.ErrorReason, map[string]string) {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == "todo.v1" {
			return todov1.ErrorReason(todov1.ErrorReason_value["ERROR_REASON_"+info.Reason]), info.Metadata
		}
	}
	return todov1.ErrorReason_ERROR_REASON_UNSPECIFIED, nil
}

// hadNoEffect tells whether a write that failed surely changed nothing.
// UNAVAILABLE promises so when the service says it; but the client's own
// transport says UNAVAILABLE too, when a connection is lost after the request
// went out.
func hadNoEffect(err error) bool {
	reason, _ := why(err)
	return status.Code(err) == codes.Unavailable && reason != todov1.ErrorReason_ERROR_REASON_UNSPECIFIED
}

// codeName is the code as the gRPC documents spell it: DEADLINE_EXCEEDED.
func codeName(err error) string {
	return code.Code(status.Code(err)).String()
}
