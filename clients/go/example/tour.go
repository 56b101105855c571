package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"

	todov1 "tidemark.dev/clients/go/gen/todo/v1"
	"tidemark.dev/clients/go/todos"
)

// recorder remembers what it created, so that the tour can delete it.
type recorder struct {
	*todos.Client
	created []string
}

func (r *recorder) Create(ctx context.Context, parent string, todo *todov1.Todo) (*todov1.Todo, error) {
	created, err := r.Client.Create(ctx, parent, todo)
	if err == nil {
		r.created = append(r.created, created.Name)
	}
	return created, err
}

// tour shows each call once, and deletes what it created.
func tour(ctx context.Context, client *todos.Client, parent string, addresses []string) (err error) {
	made := &recorder{Client: client}
	defer func() {
		for _, name := range made.created {
			err = errors.Join(err, client.Delete(ctx, name))
		}
	}()
	steps := []func(context.Context, *recorder, string) error{
		writeAndRead, listInPages, readManyTimes, errorsByReason, tooShortADeadline,
	}
	for _, step := range steps {
		if err := step(ctx, made, parent); err != nil {
			return err
		}
	}
	return onAnotherReplica(ctx, parent, addresses)
}

func writeAndRead(ctx context.Context, client *recorder, parent string) error {
	var last *todov1.Todo
	for n, title := range []string{"Buy milk", "Read a book", "Water the plants"} {
		todo := &todov1.Todo{Title: title, Priority: todov1.Todo_Priority(n + 2), Labels: []string{"tour"}}
		created, err := client.Create(ctx, parent, todo)
		if err != nil {
			return err
		}
		last = created
	}
	// The session carries the token of the write: this read cannot miss it.
	reply, err := client.Get(ctx, last.Name)
	if err != nil {
		return err
	}
	fmt.Printf("get: %s, from %s, misses nothing older than %s\n",
		reply.Todo.Title, reply.Read.Source, reply.Read.StalenessBound.AsDuration())
	return nil
}

func listInPages(ctx context.Context, client *recorder, parent string) error {
	request := &todov1.ListTodosRequest{
		Parent:      parent,
		PageSize:    2,
		Filter:      `state = ACTIVE AND labels:"tour"`,
		OrderBy:     "priority desc",
		Consistency: todos.FullyConsistent(),
	}
	for todo, err := range client.ListRequest(ctx, request) {
		if err != nil {
			return err
		}
		fmt.Printf("list: %s %s\n", todo.Priority, todo.Title)
	}
	return nil
}

// readManyTimes goes round all replicas that are healthy.
func readManyTimes(ctx context.Context, client *recorder, parent string) error {
	for range 20 {
		for _, err := range client.List(ctx, parent) {
			if err != nil {
				return err
			}
		}
	}
	fmt.Println("read: 20 times")
	return nil
}

func errorsByReason(ctx context.Context, client *recorder, parent string) error {
	created, err := client.Create(ctx, parent, &todov1.Todo{Title: "Call home"})
	if err != nil {
		return err
	}
	todo := &todov1.Todo{Name: created.Name, Title: "Call home at six", Etag: created.Etag}
	if _, err := client.Update(ctx, todo); err != nil {
		return err
	}
	// The etag is that of before the update.
	_, err = client.Update(ctx, todo)
	if err := refused(ctx, client, todo.Name, err); err != nil {
		return err
	}
	none := parent + "/todos/none"
	_, err = client.Get(ctx, none)
	if err := refused(ctx, client, none, err); err != nil {
		return err
	}
	for _, err := range client.ListRequest(ctx, &todov1.ListTodosRequest{Parent: parent, Filter: "colour = RED"}) {
		if err := refused(ctx, client, "", err); err != nil {
			return err
		}
	}
	return nil
}

// refused does what a program would do: it chooses by the reason, not by the text.
func refused(ctx context.Context, client *recorder, name string, err error) error {
	failed := todos.AsTodoError(err)
	if failed == nil {
		return fmt.Errorf("the call succeeded, or failed otherwise: %w", err)
	}
	switch failed.Reason {
	case todov1.ErrorReason_ERROR_REASON_ETAG_MISMATCH:
		// The session has the refusal's token: this read is not older than the refusal.
		now, err := client.Get(ctx, name)
		if err != nil {
			return err
		}
		fmt.Printf("refused: %s, it is now: %s\n", failed.Reason, now.Todo.Title)
	case todov1.ErrorReason_ERROR_REASON_TODO_NOT_FOUND:
		fmt.Printf("refused: %s, says %s\n", failed.Reason, failed.Metadata["source"])
	case todov1.ErrorReason_ERROR_REASON_FILTER_INVALID:
		fmt.Printf("refused: %s at character %s\n", failed.Reason, failed.Metadata["position"])
	default:
		return err
	}
	return nil
}

func tooShortADeadline(ctx context.Context, client *recorder, parent string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Microsecond)
	defer cancel()
	_, err := client.Get(ctx, parent+"/todos/none")
	if failed := todos.AsTodoError(err); failed != nil {
		fmt.Printf("too short a deadline: %s\n", code.Code(failed.Code))
	}
	return nil
}

// onAnotherReplica writes at one replica and reads at the next, if there are two. The token
// makes the second one wait until it has seen the write.
func onAnotherReplica(ctx context.Context, parent string, addresses []string) error {
	first, err := todos.Connect(addresses[0])
	if err != nil {
		return err
	}
	defer first.Close()
	written, err := first.Create(ctx, parent, &todov1.Todo{Title: "Written at one replica"})
	if err != nil {
		return err
	}
	defer first.Delete(ctx, written.Name)
	second, err := todos.Connect(addresses[1%len(addresses)], todos.WithToken(first.Token()))
	if err != nil {
		return err
	}
	defer second.Close()
	read, err := second.Get(ctx, written.Name)
	if err != nil {
		return err
	}
	fmt.Printf("at another replica: %s\n", read.Todo.Title)
	return nil
}
