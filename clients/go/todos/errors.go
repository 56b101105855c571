package todos

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	todov1 "tidemark.dev/clients/go/gen/todo/v1"
)

// errorDomain is the domain of the service's google.rpc.ErrorInfo.
const errorDomain = "todo.v1"

// TodoError is the error of every call that failed.
type TodoError struct {
	// Code is the status code of gRPC.
	Code codes.Code
	// Reason says why. It is ERROR_REASON_UNSPECIFIED if the error is not from the
	// service: a lost connection, or a deadline that passed on the way.
	Reason todov1.ErrorReason
	// Message is for people.
	Message string
	// Metadata has the values that the message mentions, such as "token".
	Metadata map[string]string
	// Fields are the fields of the request that are invalid.
	Fields []FieldProblem
	// RetryAfter is how long the service asks to wait. 0: it does not say.
	RetryAfter time.Duration

	status *status.Status
}

// FieldProblem is one invalid field of a request.
type FieldProblem struct {
	// Field is its path, such as "todo.title".
	Field string
	// Description says what is wrong and what would be right.
	Description string
}

// AsTodoError returns the TodoError in the chain of err, or nil.
func AsTodoError(err error) *TodoError {
	var found *TodoError
	errors.As(err, &found)
	return found
}

func (e *TodoError) Error() string {
	name := code.Code(e.Code).String()
	if e.Reason == todov1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		return fmt.Sprintf("%s: %s", name, e.Message)
	}
	return fmt.Sprintf("%s %s: %s", name, e.Reason, e.Message)
}

// GRPCStatus lets status.Code and status.Convert read this error.
func (e *TodoError) GRPCStatus() *status.Status { return e.status }

// HadNoEffect reports whether a write that failed changed nothing for certain.
// UNAVAILABLE says so if it is from the service; gRPC itself reports UNAVAILABLE too when a
// connection is lost after the request was sent, and then the write may have been applied.
func (e *TodoError) HadNoEffect() bool {
	return e.Code == codes.Unavailable && e.Reason != todov1.ErrorReason_ERROR_REASON_UNSPECIFIED
}

// voidsToken reports whether the service refused the token that was presented.
func (e *TodoError) voidsToken() bool {
	return e.Reason == todov1.ErrorReason_ERROR_REASON_TOKEN_FOREIGN ||
		e.Reason == todov1.ErrorReason_ERROR_REASON_TOKEN_INVALID
}

func newTodoError(err error) *TodoError {
	if found := AsTodoError(err); found != nil {
		return found
	}
	// FromContextError knows what a bare context error means in gRPC's codes.
	converted, ok := status.FromError(err)
	if !ok {
		converted = status.FromContextError(err)
	}
	e := &TodoError{Code: converted.Code(), Message: converted.Message(), status: converted}
	for _, detail := range converted.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.Domain == errorDomain {
				e.Reason = todov1.ErrorReason(todov1.ErrorReason_value["ERROR_REASON_"+detail.Reason])
				e.Metadata = detail.Metadata
			}
		case *errdetails.BadRequest:
			for _, field := range detail.FieldViolations {
				e.Fields = append(e.Fields, FieldProblem{field.Field, field.Description})
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = detail.RetryDelay.AsDuration()
		}
	}
	return e
}
