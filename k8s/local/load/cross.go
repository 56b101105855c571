package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	todov1 "tidemark.dev/clients/go/gen/todo/v1"
)

const (
	// Todos that one replica writes and the other one reads.
	crossed = 6
	// Entries are written to Redis in the background.
	sharedDelay = 500 * time.Millisecond
	// The whole exchange in one direction, on a busy machine.
	crossTimeout = time.Minute
)

// What one replica reads of what another one wrote.
type crossResult struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Tokens int    `json:"tokens"`
	Pages  int    `json:"pages"`
	// Reads that were served by an entry in Redis, most likely the other replica's.
	Shared  int `json:"shared"`
	Changes int `json:"changes"`
}

// cross ADDRESS ADDRESS: each replica reads what the other one wrote, with its tokens,
// page tokens and entries in Redis. Prints one result for each direction.
func cross(addresses []string) int {
	if len(addresses) != 2 {
		fmt.Fprintln(os.Stderr, "usage: client cross ADDRESS ADDRESS")
		return 2
	}
	var results []crossResult
	for _, pair := range [][]string{{addresses[0], addresses[1]}, {addresses[1], addresses[0]}} {
		result, err := exchange(pair[0], pair[1])
		if err != nil {
			fmt.Fprintf(os.Stderr, "client: %s reads what %s wrote: %v\n", pair[1], pair[0], err)
			return 1
		}
		results = append(results, result)
	}
	text, _ := json.Marshal(results)
	fmt.Println(string(text))
	return 0
}

func replica(address string) (todov1.TodoServiceClient, *grpc.ClientConn, error) {
	channel, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	return todov1.NewTodoServiceClient(channel), channel, nil
}

func exchange(from, to string) (crossResult, error) {
	result := crossResult{From: from, To: to}
	writer, one, err := replica(from)
	if err != nil {
		return result, err
	}
	defer one.Close()
	reader, two, err := replica(to)
	if err != nil {
		return result, err
	}
	defer two.Close()
	ctx, cancel := context.WithTimeout(context.Background(), crossTimeout)
	defer cancel()
	list := "lists/cross-" + uuid.NewString()
	token, err := result.tokens(ctx, writer, reader, list)
	if err == nil {
		err = result.shared(ctx, writer, reader, list, token)
	}
	if err == nil {
		err = result.pages(ctx, writer, reader, list, token)
	}
	if err == nil {
		err = result.changes(ctx, writer, reader, list, token)
	}
	return result, err
}

func atLeast(token string) *todov1.Consistency {
	return &todov1.Consistency{Requirement: &todov1.Consistency_AtLeastAsFresh{AtLeastAsFresh: token}}
}

func todoName(list string, i int) string {
	return fmt.Sprint(list, "/todos/t", i)
}

// The token of a write by one replica makes the other one return what was written.
func (r *crossResult) tokens(ctx context.Context, writer, reader todov1.TodoServiceClient, list string) (string, error) {
	token := ""
	for i := range crossed {
		created, err := writer.CreateTodo(ctx, &todov1.CreateTodoRequest{
			Parent: list, TodoId: fmt.Sprint("t", i), RequestId: uuid.NewString(), Todo: &todov1.Todo{Title: fmt.Sprint("first ", i)},
		})
		if err != nil {
			return "", err
		}
		token = created.Token
	}
	// One half is read here, the other half by `shared`.
	for i := range crossed / 2 {
		read, err := reader.GetTodo(ctx, &todov1.GetTodoRequest{Name: todoName(list, i), Consistency: atLeast(token)})
		if err != nil {
			return "", err
		}
		if read.Todo.Title != fmt.Sprint("first ", i) {
			return "", fmt.Errorf("with a token of the write it reads %q", read.Todo.Title)
		}
		r.Tokens++
	}
	return token, nil
}

// An entry in Redis by one replica is used by the other one, and is right.
func (r *crossResult) shared(ctx context.Context, writer, reader todov1.TodoServiceClient, list, token string) error {
	for i := crossed / 2; i < crossed; i++ {
		request := &todov1.GetTodoRequest{Name: todoName(list, i), Consistency: atLeast(token)}
		if _, err := writer.GetTodo(ctx, request); err != nil {
			return err
		}
		time.Sleep(sharedDelay)
		read, err := reader.GetTodo(ctx, request)
		if err != nil {
			return err
		}
		if read.Todo.Title != fmt.Sprint("first ", i) {
			return fmt.Errorf("from %s it reads %q", read.Read.Source, read.Todo.Title)
		}
		if read.Read.Source == todov1.Source_SOURCE_SHARED {
			r.Shared++
		}
	}
	return nil
}

// A list begun at one replica goes on at the other one.
func (r *crossResult) pages(ctx context.Context, writer, reader todov1.TodoServiceClient, list, token string) error {
	request := &todov1.ListTodosRequest{Parent: list, PageSize: 2, Consistency: atLeast(token)}
	seen := map[string]bool{}
	for page := 0; ; page++ {
		client := []todov1.TodoServiceClient{writer, reader}[page%2]
		reply, err := client.ListTodos(ctx, request)
		if err != nil {
			return err
		}
		for _, todo := range reply.Todos {
			seen[todo.Name] = true
		}
		r.Pages++
		if request.PageToken = reply.NextPageToken; request.PageToken == "" {
			break
		}
	}
	if len(seen) != crossed {
		return fmt.Errorf("pages of both replicas have %d of %d todos", len(seen), crossed)
	}
	return nil
}

// A watch at one replica resumes with the token of the other one.
func (r *crossResult) changes(ctx context.Context, writer, reader todov1.TodoServiceClient, list, token string) error {
	stream, err := reader.WatchTodos(ctx, &todov1.WatchTodosRequest{
		Parent: list, IncludeTodo: true, Start: &todov1.WatchTodosRequest_After{After: token},
	})
	if err != nil {
		return err
	}
	wanted := map[string]string{}
	for i := range crossed {
		title := fmt.Sprint("second ", i)
		_, err := writer.UpdateTodo(ctx, &todov1.UpdateTodoRequest{
			Todo: &todov1.Todo{Name: todoName(list, i), Title: title}, RequestId: uuid.NewString(),
		})
		if err != nil {
			return err
		}
		wanted[todoName(list, i)] = title
	}
	for len(wanted) > 0 {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		if message.GetReset_() != nil {
			return errors.New("the watch gets a reset")
		}
		if change := message.GetChange(); change != nil && change.Todo.GetTitle() == wanted[change.Name] {
			delete(wanted, change.Name)
			r.Changes++
		}
	}
	return nil
}
