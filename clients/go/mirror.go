package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	todov1 "tidemark/gen/todo/v1"
)

// How long to wait after a lost connection: doubled while it does not come back.
const (
	firstPause   = 50 * time.Millisecond
	longestPause = 2 * time.Second
)

// Mirror keeps a list in a local map: it lists once, then watches from where
// the list ended. A lost connection costs nothing but time, since the watch
// goes on from the last token, on whatever replica answers.
type Mirror struct {
	client todov1.TodoServiceClient
	parent string
	say    func(string)

	mutex sync.Mutex
	todos map[string]*todov1.Todo
	token string // Empty: all must be listed anew.
	floor string // What the next listing must not be older than.
}

func newMirror(client todov1.TodoServiceClient, parent string, say func(string)) *Mirror {
	return &Mirror{client: client, parent: parent, say: say, todos: map[string]*todov1.Todo{}}
}

// Todos returns the map as it is now, sorted by name.
func (m *Mirror) Todos() []*todov1.Todo {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	var sorted []*todov1.Todo
	for _, name := range slices.Sorted(maps.Keys(m.todos)) {
		sorted = append(sorted, m.todos[name])
	}
	return sorted
}

// Run follows the list until ctx ends or the service says that it makes no sense.
func (m *Mirror) Run(ctx context.Context) error {
	pause := firstPause
	for {
		moved, err := m.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if moved {
			pause = firstPause
		}
		reason, _ := why(err)
		switch {
		case reason == todov1.ErrorReason_ERROR_REASON_TOKEN_FOREIGN,
			reason == todov1.ErrorReason_ERROR_REASON_TOKEN_INVALID:
			m.token, m.floor = "", "" // Another database, or one restored to the past.
		case !mayPass(status.Code(err)):
			return err
		}
		m.say(fmt.Sprintf("lost: %s %s", codeName(err), reason))
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// mayPass tells whether an error of a read is worth another try.
func mayPass(code codes.Code) bool {
	switch code {
	case codes.InvalidArgument, codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied:
		return false
	}
	return true
}

// follow lists if it must, then watches until the stream ends.
func (m *Mirror) follow(ctx context.Context) (moved bool, err error) {
	if m.token == "" {
		if err := m.list(ctx); err != nil {
			return false, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The one call without a deadline: it is meant to last.
	stream, err := m.client.WatchTodos(ctx, &todov1.WatchTodosRequest{
		Parent:      m.parent,
		Start:       &todov1.WatchTodosRequest_After{After: m.token},
		IncludeTodo: true,
	})
	if err != nil {
		return false, err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return moved, err
		}
		if !moved {
			m.say("following")
			moved = true
		}
		m.token = message.Token
		switch event := message.Event.(type) {
		case *todov1.WatchTodosResponse_Change:
			m.apply(event.Change)
		case *todov1.WatchTodosResponse_Reset_:
			m.say("reset: " + event.Reset_.Reason)
			m.token, m.floor = "", message.Token
			if err := m.list(ctx); err != nil {
				return moved, err
			}
		}
	}
}

// list reads all pages. The token of the last is where the watch begins.
func (m *Mirror) list(ctx context.Context) error {
	todos := map[string]*todov1.Todo{}
	request := &todov1.ListTodosRequest{Parent: m.parent, PageSize: 1000}
	if m.floor != "" {
		request.Consistency = atLeastAsFresh(m.floor)
	}
	for {
		page, err := m.page(ctx, request)
		if err != nil {
			return err
		}
		for _, todo := range page.Todos {
			todos[todo.Name] = todo
		}
		if request.PageToken = page.NextPageToken; request.PageToken == "" {
			m.mutex.Lock()
			defer m.mutex.Unlock()
			m.todos, m.token = todos, page.Read.Token
			return nil
		}
	}
}

func (m *Mirror) page(ctx context.Context, request *todov1.ListTodosRequest) (*todov1.ListTodosResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return m.client.ListTodos(ctx, request)
}

// apply puts one change into the map. A change without its todo is of one that
// is gone by now, whatever its kind.
func (m *Mirror) apply(change *todov1.TodoChange) {
	m.mutex.Lock()
	if change.Todo != nil {
		m.todos[change.Name] = change.Todo
	} else {
		delete(m.todos, change.Name)
	}
	m.mutex.Unlock()
	if change.Todo != nil {
		m.say(fmt.Sprintf("put: %s %s", change.Name, change.Todo.Title))
	} else {
		m.say("gone: " + change.Name)
	}
}
