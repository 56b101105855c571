// A client of the todo service to start from: each file shows one thing.
//
//	connect.go   one channel over all replicas, by the published service config
//	tour.go      each call once, with deadlines
//	write.go     writes that may be tried again
//	errors.go    errors told by their reason
//	mirror.go    a list kept in a local map, through lost connections
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	todov1 "tidemark/gen/todo/v1"
)

const usage = `usage:
  todos get NAME ADDRESS...      reads one todo
  todos tour LIST ADDRESS...     shows each call once; two replicas or more
  todos mirror LIST ADDRESS...   follows a list until the end of its input`

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		reason, _ := why(err)
		fmt.Fprintf(os.Stderr, "todos: %s: %v\n", reason, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 3 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	what, addresses := args[1], args[2:]
	switch args[0] {
	case "get":
		return get(ctx, what, addresses)
	case "tour":
		return tour(ctx, what, addresses)
	case "mirror":
		return mirror(ctx, what, addresses)
	}
	return fmt.Errorf("no such command: %s", args[0])
}

func get(ctx context.Context, name string, addresses []string) error {
	connection, err := connect(addresses)
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := todov1.NewTodoServiceClient(connection).GetTodo(ctx, &todov1.GetTodoRequest{Name: name})
	if err != nil {
		return err
	}
	fmt.Println(reply.Todo.Title)
	return nil
}

func mirror(ctx context.Context, parent string, addresses []string) error {
	connection, err := connect(addresses)
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	followed := newMirror(todov1.NewTodoServiceClient(connection), parent, func(line string) { fmt.Println(line) })
	if err := followed.Run(ctx); err != nil {
		return err
	}
	for _, todo := range followed.Todos() {
		fmt.Printf("has: %s %s\n", todo.Name, todo.Title)
	}
	return nil
}
