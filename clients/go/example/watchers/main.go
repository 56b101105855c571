// Many watchers of one list in one process, each on a connection by itself: a load for tests. Each keeps the
// etags of the todos and lists them again after a reset.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	todov1 "tidemark.dev/clients/go/gen/todo/v1"
)

// How long the watchers may take until they show what the service has.
const patience = 10 * time.Minute

// The etags of todos by name; the same text is in memory once for all watchers.
type etags map[unique.Handle[string]]unique.Handle[string]

type watcher struct {
	stub  todov1.TodoServiceClient
	list  string
	mutex sync.Mutex
	shown etags
	token string
}

var resets, lost atomic.Int64

var strong = &todov1.Consistency{Requirement: &todov1.Consistency_FullyConsistent{FullyConsistent: true}}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: watchers LIST COUNT ADDRESS")
		os.Exit(2)
	}
	count, err := strconv.Atoi(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx := context.Background()
	watchers := make([]*watcher, count)
	var ready sync.WaitGroup
	for n := range watchers {
		connection, err := grpc.NewClient(os.Args[3], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		watchers[n] = &watcher{stub: todov1.NewTodoServiceClient(connection), list: os.Args[1]}
		ready.Add(1)
		go watchers[n].run(ctx, ready.Done)
	}
	ready.Wait()
	fmt.Println("following")
	// The import has ended.
	bufio.NewReader(os.Stdin).ReadString('\n')
	began := time.Now()
	for {
		right := 0
		truth, _, err := list(ctx, watchers[0].stub, os.Args[1], strong)
		if err == nil {
			for _, watcher := range watchers {
				if watcher.shows(truth) {
					right++
				}
			}
		}
		if right == count || time.Since(began) > patience {
			fmt.Printf("right: %d of %d with %d todos after %.1f s, %d resets, %d lost\n",
				right, count, len(truth), time.Since(began).Seconds(), resets.Load(), lost.Load())
			return
		}
		time.Sleep(time.Second)
	}
}

func (w *watcher) run(ctx context.Context, ready func()) {
	once := sync.OnceFunc(ready)
	for {
		if err := w.follow(ctx, once); err != nil {
			lost.Add(1)
			time.Sleep(500 * time.Millisecond)
		}
	}
}

// follow returns nil after a reset.
func (w *watcher) follow(ctx context.Context, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if w.token == "" {
		shown, token, err := list(ctx, w.stub, w.list, nil)
		if err != nil {
			return err
		}
		w.mutex.Lock()
		w.shown = shown
		w.mutex.Unlock()
		w.token = token
	}
	stream, err := w.stub.WatchTodos(ctx, &todov1.WatchTodosRequest{
		Parent:      w.list,
		Start:       &todov1.WatchTodosRequest_After{After: w.token},
		IncludeTodo: true,
	})
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		ready()
		switch event := message.Event.(type) {
		case *todov1.WatchTodosResponse_Reset_:
			resets.Add(1)
			w.token = ""
			return nil
		case *todov1.WatchTodosResponse_Change:
			w.mutex.Lock()
			if todo := event.Change.Todo; todo != nil {
				w.shown[unique.Make(event.Change.Name)] = unique.Make(todo.Etag)
			} else {
				delete(w.shown, unique.Make(event.Change.Name))
			}
			w.mutex.Unlock()
		}
		w.token = message.Token
	}
}

func (w *watcher) shows(truth etags) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if len(w.shown) != len(truth) {
		return false
	}
	for name, etag := range truth {
		if w.shown[name] != etag {
			return false
		}
	}
	return true
}

// list returns the etags of all todos, and a token that covers them.
func list(
	ctx context.Context, stub todov1.TodoServiceClient, parent string, consistency *todov1.Consistency,
) (etags, string, error) {
	found, token, page := etags{}, "", ""
	for {
		reply, err := stub.ListTodos(ctx, &todov1.ListTodosRequest{
			Parent: parent, PageSize: 1000, PageToken: page, Consistency: consistency,
		})
		if err != nil {
			return nil, "", err
		}
		for _, todo := range reply.Todos {
			found[unique.Make(todo.Name)] = unique.Make(todo.Etag)
		}
		token, page = reply.Read.Token, reply.NextPageToken
		if page == "" {
			return found, token, nil
		}
	}
}
