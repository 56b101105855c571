package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	todov1 "tidemark/gen/todo/v1"
)

// How long any call but a watch may take. The service hands what is left of it
// down to Redis and MongoDB, and gives up when the caller does.
const callTimeout = 5 * time.Second

func atLeastAsFresh(token string) *todov1.Consistency {
	return &todov1.Consistency{Requirement: &todov1.Consistency_AtLeastAsFresh{AtLeastAsFresh: token}}
}

// tour shows each call once, in a list of its own.
func tour(ctx context.Context, parent string, addresses []string) error {
	all, err := connect(addresses)
	if err != nil {
		return err
	}
	defer all.Close()
	client := todov1.NewTodoServiceClient(all)
	steps := []func(context.Context, todov1.TodoServiceClient, string) error{
		writeAndRead, listInPages, readManyTimes, errorsByReason, tooShortADeadline,
	}
	for _, step := range steps {
		if err := step(ctx, client, parent); err != nil {
			return err
		}
	}
	return onAnotherReplica(ctx, parent, addresses)
}

func writeAndRead(ctx context.Context, client todov1.TodoServiceClient, parent string) error {
	var last *todov1.CreateTodoResponse
	for n, title := range []string{"Buy milk", "Read a book", "Water the plants"} {
		todo := &todov1.Todo{Title: title, Priority: todov1.Todo_Priority(n + 2), Labels: []string{"tour"}}
		created, err := create(ctx, client, parent, todo)
		if err != nil {
			return err
		}
		last = created
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := client.GetTodo(ctx, &todov1.GetTodoRequest{
		Name:        last.Todo.Name,
		Consistency: atLeastAsFresh(last.Token),
	})
	if err != nil {
		return err
	}
	fmt.Printf("get: %s, from %s, misses nothing older than %s\n",
		reply.Todo.Title, reply.Read.Source, reply.Read.StalenessBound.AsDuration())
	return nil
}

func listInPages(ctx context.Context, client todov1.TodoServiceClient, parent string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	request := &todov1.ListTodosRequest{
		Parent:      parent,
		PageSize:    2,
		Filter:      `state = ACTIVE AND labels:"tour"`,
		OrderBy:     "priority desc",
		Consistency: &todov1.Consistency{Requirement: &todov1.Consistency_FullyConsistent{FullyConsistent: true}},
	}
	for {
		page, err := client.ListTodos(ctx, request)
		if err != nil {
			return err
		}
		for _, todo := range page.Todos {
			fmt.Printf("list: %s %s\n", todo.Priority, todo.Title)
		}
		if request.PageToken = page.NextPageToken; request.PageToken == "" {
			return nil
		}
	}
}

// readManyTimes goes round all replicas that are healthy.
func readManyTimes(ctx context.Context, client todov1.TodoServiceClient, parent string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for range 20 {
		if _, err := client.ListTodos(ctx, &todov1.ListTodosRequest{Parent: parent}); err != nil {
			return err
		}
	}
	fmt.Println("read: 20 times")
	return nil
}

func errorsByReason(ctx context.Context, client todov1.TodoServiceClient, parent string) error {
	created, err := create(ctx, client, parent, &todov1.Todo{Title: "Call home"})
	if err != nil {
		return err
	}
	todo := &todov1.Todo{Name: created.Todo.Name, Title: "Call home at six", Etag: created.Todo.Etag}
	if _, err := update(ctx, client, todo); err != nil {
		return err
	}
	// The etag is that of before the update.
	_, err = update(ctx, client, todo)
	if err := told(ctx, client, todo.Name, err); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	none := parent + "/todos/none"
	_, err = client.GetTodo(ctx, &todov1.GetTodoRequest{Name: none})
	if err := told(ctx, client, none, err); err != nil {
		return err
	}
	_, err = client.ListTodos(ctx, &todov1.ListTodosRequest{Parent: parent, Filter: "colour = RED"})
	return told(ctx, client, "", err)
}

// told does what a program would do: it chooses by the reason, not by the text.
func told(ctx context.Context, client todov1.TodoServiceClient, name string, err error) error {
	reason, values := why(err)
	switch reason {
	case todov1.ErrorReason_ERROR_REASON_ETAG_MISMATCH:
		// With the refusal's token, the next read is not older than the refusal.
		now, err := client.GetTodo(ctx, &todov1.GetTodoRequest{Name: name, Consistency: atLeastAsFresh(values["token"])})
		if err != nil {
			return err
		}
		fmt.Printf("refused: %s, it is now: %s\n", reason, now.Todo.Title)
	case todov1.ErrorReason_ERROR_REASON_TODO_NOT_FOUND:
		fmt.Printf("refused: %s, says %s\n", reason, values["source"])
	case todov1.ErrorReason_ERROR_REASON_FILTER_INVALID:
		fmt.Printf("refused: %s at character %s\n", reason, values["position"])
	default:
		return err
	}
	return nil
}

func tooShortADeadline(ctx context.Context, client todov1.TodoServiceClient, parent string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Microsecond)
	defer cancel()
	_, err := client.ListTodos(ctx, &todov1.ListTodosRequest{Parent: parent})
	fmt.Printf("too short a deadline: %s\n", codeName(err))
	return nil
}

// onAnotherReplica writes at the first replica and reads at the second. The
// token makes the second one wait until it has seen the write.
func onAnotherReplica(ctx context.Context, parent string, addresses []string) error {
	var one [2]todov1.TodoServiceClient
	for n := range one {
		connection, err := connect(addresses[n : n+1])
		if err != nil {
			return err
		}
		defer func(c *grpc.ClientConn) { c.Close() }(connection)
		one[n] = todov1.NewTodoServiceClient(connection)
	}
	written, err := create(ctx, one[0], parent, &todov1.Todo{Title: "Written at one replica"})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	read, err := one[1].GetTodo(ctx, &todov1.GetTodoRequest{
		Name:        written.Todo.Name,
		Consistency: atLeastAsFresh(written.Token),
	})
	if err != nil {
		return err
	}
	fmt.Printf("at another replica: %s\n", read.Todo.Title)
	return nil
}
