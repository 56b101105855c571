package todos

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	todov1 "tidemark.dev/clients/go/gen/todo/v1"
)

const (
	// DefaultMirrorBytes bounds a mirror by the encoded size of its todos.
	DefaultMirrorBytes = 64 << 20

	// The service sends a message at least this often. After three times as long without
	// one, the replica counts as lost.
	progressInterval = 5 * time.Second
	longestSilence   = 3 * progressInterval
)

// MirrorOptions are the callbacks and the bound of a Mirror. Callbacks run one at a time,
// in the goroutine of Run, after the mirror has changed.
type MirrorOptions struct {
	// OnChange is called for each todo that is new or changed, and with a nil todo for
	// each that is gone.
	OnChange func(name string, todo *todov1.Todo)
	// OnReady is called when the mirror follows the list: at first, and after OnStale.
	OnReady func()
	// OnStale is called when the mirror stops following the list: a lost connection, a
	// draining replica, a reset (then the error is nil). It recovers by itself.
	OnStale func(err error)
	// MaxBytes replaces DefaultMirrorBytes. Run fails when the list is larger.
	MaxBytes int
}

// Mirror keeps a list in memory. It lists once, then watches from where the list ended. After
// a lost connection the watch goes on from the last token, on whatever replica answers; after
// a reset the mirror lists anew, not older than what it showed. It never shows a todo in a
// state older than one that it showed before, unless the database itself was replaced.
type Mirror struct {
	client  *Client
	parent  string
	options MirrorOptions

	mutex sync.RWMutex
	todos map[string]*todov1.Todo
	bytes int
	ready bool

	// Of the goroutine of Run. Empty: all must be listed anew.
	token string
	// The newest state shown: no listing may be older.
	shown session
}

// Mirror returns a mirror of a list (lists/{list}). Run starts it.
func (c *Client) Mirror(parent string, options MirrorOptions) *Mirror {
	if options.MaxBytes == 0 {
		options.MaxBytes = DefaultMirrorBytes
	}
	return &Mirror{client: c, parent: parent, options: options, todos: map[string]*todov1.Todo{}}
}

// Todos returns the list as it is now, sorted by name. The todos are shared: do not change
// them.
func (m *Mirror) Todos() []*todov1.Todo {
	m.mutex.RLock()
	defer m.mutex.RUnlock()
	return sortedByName(slices.Collect(maps.Values(m.todos)))
}

// Get returns one todo as it is now, or nil.
func (m *Mirror) Get(name string) *todov1.Todo {
	m.mutex.RLock()
	defer m.mutex.RUnlock()
	return m.todos[name]
}

// Ready reports whether the mirror follows the list at this moment.
func (m *Mirror) Ready() bool {
	m.mutex.RLock()
	defer m.mutex.RUnlock()
	return m.ready
}

// Run follows the list until ctx ends, and then returns nil, or until an error that no
// repetition can resolve: an invalid name, a missing permission, a list that is too large.
func (m *Mirror) Run(ctx context.Context) error {
	defer m.setReady(false)
	pause := firstPause
	for {
		before := m.token
		err := m.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		moved := m.token != before
		if err != nil {
			failed := AsTodoError(err)
			if failed == nil {
				return err
			}
			if failed.voidsToken() {
				// Of another database, or of one restored to the past.
				m.token, m.shown = "", session{}
			} else if isLasting(failed.Code, moved) {
				return failed
			}
			pause = max(pause, failed.RetryAfter)
		}
		m.stale(err)
		if moved {
			pause = firstPause
		}
		if err != nil && !wait(ctx, jitter(pause)) {
			return nil
		}
		pause = min(2*pause, longestPause)
	}
}

// isLasting reports whether the same call would fail again. A credential that expired
// during a watch is not: the next call has a new one.
func isLasting(code codes.Code, moved bool) bool {
	switch code {
	case codes.InvalidArgument, codes.Unimplemented, codes.PermissionDenied:
		return true
	case codes.Unauthenticated:
		return !moved
	}
	return false
}

// follow lists if it must, then watches until the stream ends. It returns nil after a reset.
func (m *Mirror) follow(ctx context.Context) error {
	if m.token == "" {
		if err := m.list(ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(longestSilence, func() {
		cancel(fmt.Errorf("no message for %s", longestSilence))
	})
	defer silence.Stop()
	// The one call without a deadline: it is meant to last.
	stream, err := m.client.Stub.WatchTodos(ctx, &todov1.WatchTodosRequest{
		Parent:           m.parent,
		Start:            &todov1.WatchTodosRequest_After{After: m.token},
		IncludeTodo:      true,
		ProgressInterval: durationpb.New(progressInterval),
	})
	if err != nil {
		return newTodoError(err)
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			failed := newTodoError(err)
			if cause := context.Cause(ctx); cause != nil {
				failed.Message = cause.Error()
			}
			return failed
		}
		silence.Reset(longestSilence)
		again, err := m.take(ctx, message)
		if err != nil || again {
			return err
		}
	}
}

// take applies one message, and then advances the token. It returns true if the list must
// be read again: what the stream still holds may be older than that listing, so the stream
// ends here.
func (m *Mirror) take(ctx context.Context, message *todov1.WatchTodosResponse) (again bool, err error) {
	m.shown.observe(message.Token)
	switch event := message.Event.(type) {
	case *todov1.WatchTodosResponse_Reset_:
		m.token = ""
		return true, nil
	case *todov1.WatchTodosResponse_Change:
		if err := m.change(ctx, event.Change, message.Token); err != nil {
			return false, err
		}
	}
	m.token = message.Token
	m.client.session.observe(message.Token)
	m.follows()
	return false, nil
}

// change applies one change. Without its todo it is of one that is gone, or that the
// service could not read in time: only a deletion says which.
func (m *Mirror) change(ctx context.Context, change *todov1.TodoChange, token string) error {
	todo := change.Todo
	if todo == nil && change.Kind != todov1.TodoChange_KIND_DELETED {
		reply, err := m.client.Get(ctx, change.Name, atLeastAsFresh(token))
		if err != nil {
			switch failed := AsTodoError(err); failed.Reason {
			case todov1.ErrorReason_ERROR_REASON_TODO_NOT_FOUND, todov1.ErrorReason_ERROR_REASON_TODO_UNREADABLE:
				m.shown.observe(failed.Metadata["token"])
			default:
				return err
			}
		} else {
			todo = reply.Todo
			m.shown.observe(reply.Read.GetToken())
		}
	}
	return m.put(change.Name, todo)
}

// list reads all pages. The token of the last is where the watch begins.
func (m *Mirror) list(ctx context.Context) error {
	todos, bytes, token := map[string]*todov1.Todo{}, 0, ""
	request := &todov1.ListTodosRequest{Parent: m.parent, PageSize: maxPageSize}
	if token := m.newestToken(); token != "" {
		request.Consistency = atLeastAsFresh(token)
	}
	for page, err := range m.client.Pages(ctx, request) {
		if err != nil {
			return err
		}
		for _, todo := range page.Todos {
			todos[todo.Name] = todo
			if bytes += proto.Size(todo); bytes > m.options.MaxBytes {
				return m.tooLarge()
			}
		}
		token = page.Read.GetToken()
		m.shown.observe(token)
	}
	m.replace(todos, bytes)
	m.token = token
	return nil
}

// newestToken is what a listing must not be older than: what the mirror showed, and what
// the client wrote and read.
func (m *Mirror) newestToken() string {
	newest := session{token: m.client.Token()}
	newest.observe(m.shown.current())
	return newest.current()
}

// replace shows a listing, and reports how it differs from what was shown.
func (m *Mirror) replace(todos map[string]*todov1.Todo, bytes int) {
	m.mutex.Lock()
	before := m.todos
	m.todos, m.bytes = todos, bytes
	m.mutex.Unlock()
	if m.options.OnChange == nil {
		return
	}
	for name := range before {
		if todos[name] == nil {
			m.options.OnChange(name, nil)
		}
	}
	for name, todo := range todos {
		if was := before[name]; was == nil || !proto.Equal(was, todo) {
			m.options.OnChange(name, todo)
		}
	}
}

// put shows one todo, or that it is gone.
func (m *Mirror) put(name string, todo *todov1.Todo) error {
	m.mutex.Lock()
	was := m.todos[name]
	if was != nil {
		m.bytes -= proto.Size(was)
	}
	delete(m.todos, name)
	if todo != nil {
		m.todos[name] = todo
		m.bytes += proto.Size(todo)
	}
	bytes := m.bytes
	m.mutex.Unlock()
	if m.options.OnChange != nil && (todo != nil || was != nil) && !proto.Equal(was, todo) {
		m.options.OnChange(name, todo)
	}
	if bytes > m.options.MaxBytes {
		return m.tooLarge()
	}
	return nil
}

func (m *Mirror) tooLarge() error {
	return fmt.Errorf("todos: %s has more than %d bytes; set MirrorOptions.MaxBytes", m.parent, m.options.MaxBytes)
}

func (m *Mirror) follows() {
	if was := m.setReady(true); !was && m.options.OnReady != nil {
		m.options.OnReady()
	}
}

func (m *Mirror) setReady(ready bool) (was bool) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	was, m.ready = m.ready, ready
	return was
}

// stale marks the mirror. Before it followed, only an error is reported.
func (m *Mirror) stale(err error) {
	if was := m.setReady(false); (was || err != nil) && m.options.OnStale != nil {
		m.options.OnStale(err)
	}
}
