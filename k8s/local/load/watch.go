package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	todov1 "tidemark.dev/clients/go/gen/todo/v1"
)

// Changes are visible to a watch within milliseconds; a busy machine needs longer.
const settleTime = 5 * time.Second

type watchResult struct {
	Changes int `json:"changes"`
	Resets  int `json:"resets"`
	// Streams that ended and were resumed with the last token.
	Resumed int `json:"resumed"`
	// Todos whose last change the watch has not delivered.
	Missing []string `json:"missing"`
}

// A watch over a list that resumes from its last token whenever a stream ends.
type watcher struct {
	stop   context.CancelFunc
	ended  chan struct{}
	mutex  sync.Mutex
	titles map[string]string
	result watchResult
}

func watch(client todov1.TodoServiceClient, list string) *watcher {
	ctx, stop := context.WithCancel(context.Background())
	w := &watcher{stop: stop, ended: make(chan struct{}), titles: map[string]string{}}
	go w.follow(ctx, client, list)
	return w
}

func (w *watcher) follow(ctx context.Context, client todov1.TodoServiceClient, list string) {
	defer close(w.ended)
	token := ""
	for ctx.Err() == nil {
		request := &todov1.WatchTodosRequest{Parent: list, IncludeTodo: true}
		if token != "" {
			request.Start = &todov1.WatchTodosRequest_After{After: token}
		}
		stream, err := client.WatchTodos(ctx, request, grpc.WaitForReady(true))
		for err == nil {
			var message *todov1.WatchTodosResponse
			if message, err = stream.Recv(); err == nil {
				if message.Token != "" {
					token = message.Token
				}
				w.record(message)
			}
		}
		if ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, time.Now().UTC().Format("15:04:05.000"), "watch ended:", status.Convert(err).Message())
			w.mutex.Lock()
			w.result.Resumed++
			w.mutex.Unlock()
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func (w *watcher) record(message *todov1.WatchTodosResponse) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if change := message.GetChange(); change != nil {
		w.result.Changes++
		if change.Todo != nil {
			w.titles[change.Name] = change.Todo.Title
		}
	}
	if message.GetReset_() != nil {
		w.result.Resets++
	}
}

// Compares what the watch has delivered with the database.
func (w *watcher) finish(client todov1.TodoServiceClient, list string) *watchResult {
	time.Sleep(settleTime)
	w.stop()
	<-w.ended
	for i := range todos {
		name := fmt.Sprint(list, "/todos/t", i)
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		reply, err := client.GetTodo(ctx, &todov1.GetTodoRequest{Name: name, Consistency: strong()}, grpc.WaitForReady(true))
		cancel()
		if err != nil {
			w.result.Missing = append(w.result.Missing, name+": "+err.Error())
			continue
		}
		// A todo that was not updated during the watch has no title there.
		seen, changed := w.titles[name]
		if changed && seen != reply.Todo.Title {
			w.result.Missing = append(w.result.Missing, fmt.Sprintf("%s: %q, but the watch has %q", name, reply.Todo.Title, seen))
		}
	}
	return &w.result
}
