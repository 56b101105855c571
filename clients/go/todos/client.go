// Package todos is a client of the todo service.
//
// A Client is one session: each read is at least as fresh as everything that the session
// has written and read before, on whatever replica answers. See docs/protocol.md of the
// service for what a token promises.
package todos

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	todov1 "tidemark.dev/clients/go/gen/todo/v1"
)

// How long a write waits before it is repeated: doubled each time, with jitter.
const (
	firstPause   = 50 * time.Millisecond
	longestPause = 2 * time.Second
)

// Todo is a todo of the service, so that simple programs need no other import.
type Todo = todov1.Todo

// TodoList is a list of the service.
type TodoList = todov1.TodoList

// Client calls the service. It is safe for concurrent use. Errors are of type *TodoError.
//
// Writes are repeated until the deadline as long as that cannot write twice.
type Client struct {
	// Stub has every call as generated, with the same deadlines, session, repetitions
	// and errors.
	Stub todov1.TodoServiceClient

	connection *grpc.ClientConn
	timeout    time.Duration
	session    *session
}

// Close releases the connections, also those of the client's other sessions.
func (c *Client) Close() error { return c.connection.Close() }

// NewSession returns a client with a session of its own over the same connections: for
// example one for each user of a program. token continues another session; it may be empty.
func (c *Client) NewSession(token string) *Client {
	other := &Client{connection: c.connection, timeout: c.timeout, session: &session{}}
	other.session.observe(token)
	other.Stub = todov1.NewTodoServiceClient(ofSession{c.connection, other.session})
	return other
}

// Token is the newest token of the session, to continue it elsewhere; empty before the
// first call. NewSession and WithToken take it.
func (c *Client) Token() string { return c.session.current() }

// FullyConsistent makes a read reflect every write acknowledged before it began.
func FullyConsistent() *todov1.Consistency {
	return &todov1.Consistency{Requirement: &todov1.Consistency_FullyConsistent{FullyConsistent: true}}
}

// MaxStaleness makes a read miss no write acknowledged longer ago than this.
func MaxStaleness(bound time.Duration) *todov1.Consistency {
	return &todov1.Consistency{Requirement: &todov1.Consistency_MaxStaleness{MaxStaleness: durationpb.New(bound)}}
}

// CachedOnly makes a read fail rather than ask the database.
func CachedOnly() *todov1.Consistency {
	return &todov1.Consistency{Requirement: &todov1.Consistency_CachedOnly{CachedOnly: true}}
}

func atLeastAsFresh(token string) *todov1.Consistency {
	return &todov1.Consistency{Requirement: &todov1.Consistency_AtLeastAsFresh{AtLeastAsFresh: token}}
}

// Get reads one todo. A consistency level replaces the session's.
func (c *Client) Get(ctx context.Context, name string, level ...*todov1.Consistency) (*todov1.GetTodoResponse, error) {
	return c.Stub.GetTodo(ctx, &todov1.GetTodoRequest{Name: name, Consistency: first(level)})
}

// BatchGet reads up to 1000 todos.
func (c *Client) BatchGet(ctx context.Context, names []string, level ...*todov1.Consistency) (*todov1.BatchGetTodosResponse, error) {
	return c.Stub.BatchGetTodos(ctx, &todov1.BatchGetTodosRequest{Names: names, Consistency: first(level)})
}

func first(level []*todov1.Consistency) *todov1.Consistency {
	if len(level) == 0 {
		return nil
	}
	return level[0]
}

// Create creates a todo in a list (lists/{list}) under a name that the service makes.
// Stub.CreateTodo has all options.
func (c *Client) Create(ctx context.Context, parent string, todo *todov1.Todo) (*todov1.Todo, error) {
	reply, err := c.Stub.CreateTodo(ctx, &todov1.CreateTodoRequest{Parent: parent, Todo: todo})
	return reply.GetTodo(), err
}

// Update writes the named fields of the todo, or those that are set. If the todo has an
// etag, it writes only if the etag matches.
func (c *Client) Update(ctx context.Context, todo *todov1.Todo, fields ...string) (*todov1.Todo, error) {
	request := &todov1.UpdateTodoRequest{Todo: todo}
	if len(fields) > 0 {
		request.UpdateMask = &fieldmaskpb.FieldMask{Paths: fields}
	}
	reply, err := c.Stub.UpdateTodo(ctx, request)
	return reply.GetTodo(), err
}

// Delete deletes a todo. Stub.DeleteTodo has all options.
func (c *Client) Delete(ctx context.Context, name string) error {
	_, err := c.Stub.DeleteTodo(ctx, &todov1.DeleteTodoRequest{Name: name})
	return err
}

// GetList reads one list: its title and its members.
func (c *Client) GetList(ctx context.Context, name string, level ...*todov1.Consistency) (*todov1.TodoList, error) {
	reply, err := c.Stub.GetTodoList(ctx, &todov1.GetTodoListRequest{Name: name, Consistency: first(level)})
	return reply.GetTodoList(), err
}

// CreateList creates a list (lists/{id}). An empty id is replaced by one that the service
// makes. With authentication the caller becomes an owner.
func (c *Client) CreateList(ctx context.Context, id string, list *todov1.TodoList) (*todov1.TodoList, error) {
	reply, err := c.Stub.CreateTodoList(ctx, &todov1.CreateTodoListRequest{TodoListId: id, TodoList: list})
	return reply.GetTodoList(), err
}

// UpdateList writes the named fields of the list (title, members), or those that are set. If
// the list has an etag, it writes only if the etag matches.
func (c *Client) UpdateList(ctx context.Context, list *todov1.TodoList, fields ...string) (*todov1.TodoList, error) {
	request := &todov1.UpdateTodoListRequest{TodoList: list}
	if len(fields) > 0 {
		request.UpdateMask = &fieldmaskpb.FieldMask{Paths: fields}
	}
	reply, err := c.Stub.UpdateTodoList(ctx, request)
	return reply.GetTodoList(), err
}

// DeleteList deletes a list. With its todos it does so only if force is set.
func (c *Client) DeleteList(ctx context.Context, name string, force bool) error {
	_, err := c.Stub.DeleteTodoList(ctx, &todov1.DeleteTodoListRequest{Name: name, Force: force})
	return err
}

// ofSession is the connection as another session uses it.
type ofSession struct {
	*grpc.ClientConn
	session *session
}

func (o ofSession) Invoke(ctx context.Context, method string, request, reply any, options ...grpc.CallOption) error {
	return o.ClientConn.Invoke(context.WithValue(ctx, sessionKey{}, o.session), method, request, reply, options...)
}

type sessionKey struct{}

// intercept gives each call its deadline and the session's token, repeats it where that is
// safe, and takes the token of the answer.
func (c *Client) intercept(
	ctx context.Context, method string, request, reply any,
	connection *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	message, ok := request.(proto.Message)
	answer, isMessage := reply.(proto.Message)
	if !ok || !isMessage {
		return invoke(ctx, method, request, reply, connection, options...)
	}
	used := c.session
	if other, ok := ctx.Value(sessionKey{}).(*session); ok {
		used = other
	}
	if _, has := ctx.Deadline(); !has && c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	message, presented := prepare(message, used.current())
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := invoke(ctx, method, message, reply, connection, options...)
		if err == nil {
			used.observe(tokenOf(answer.ProtoReflect()))
			return nil
		}
		failed := newTodoError(err)
		used.observe(failed.Metadata["token"])
		if failed.voidsToken() {
			used.forget(presented)
		}
		if !mayRepeat(message.ProtoReflect(), failed) || !wait(ctx, max(jitter(pause), failed.RetryAfter)) {
			return failed
		}
	}
}

// prepare returns a copy of the request with the session's token, if the request states no
// level, and with a request id. The caller's message stays as it is.
func prepare(request proto.Message, token string) (prepared proto.Message, presented string) {
	fields := request.ProtoReflect().Descriptor().Fields()
	consistency, id := fields.ByName("consistency"), fields.ByName("request_id")
	present := consistency != nil && token != "" && !request.ProtoReflect().Has(consistency)
	identify := id != nil && !request.ProtoReflect().Has(id)
	if !present && !identify {
		return request, ""
	}
	copied := proto.Clone(request)
	if present {
		presented = token
		copied.ProtoReflect().Set(consistency, protoreflect.ValueOfMessage(atLeastAsFresh(token).ProtoReflect()))
	}
	if identify {
		copied.ProtoReflect().Set(id, protoreflect.ValueOfString(uuid.NewString()))
	}
	return copied, presented
}

// tokenOf is the token of an answer: of a write in `token`, of a read in `read.token`.
func tokenOf(answer protoreflect.Message) string {
	fields := answer.Descriptor().Fields()
	if read := fields.ByName("read"); read != nil && read.Message() != nil {
		return tokenOf(answer.Get(read).Message())
	}
	if token := fields.ByName("token"); token != nil && token.Kind() == protoreflect.StringKind {
		return answer.Get(token).String()
	}
	return ""
}

// mayRepeat reports whether a call may be sent again. Reads are repeated by the service
// config on UNAVAILABLE; some transports have other codes for a broken connection, without a
// reason. With a request id the service writes once, however often it is asked.
func mayRepeat(request protoreflect.Message, failed *TodoError) bool {
	broken := failed.Reason == todov1.ErrorReason_ERROR_REASON_UNSPECIFIED &&
		(failed.Code == codes.Unknown || failed.Code == codes.Internal)
	fields := request.Descriptor().Fields()
	switch {
	case fields.ByName("consistency") != nil:
		return broken
	case fields.ByName("request_id") != nil:
		return broken || failed.Code == codes.Unavailable ||
			failed.Reason == todov1.ErrorReason_ERROR_REASON_WRITE_OUTCOME_UNKNOWN
	default:
		return failed.HadNoEffect()
	}
}

func jitter(pause time.Duration) time.Duration {
	return pause/2 + rand.N(pause/2)
}

// wait returns false, at once, if the context ends before.
func wait(ctx context.Context, pause time.Duration) bool {
	if deadline, has := ctx.Deadline(); has && time.Until(deadline) < pause {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}

func sortedByName(todos []*todov1.Todo) []*todov1.Todo {
	slices.SortFunc(todos, func(one, other *todov1.Todo) int {
		if one.Name < other.Name {
			return -1
		}
		return 1
	})
	return todos
}
