// An example client of the todo service: each command shows a part of the library.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"

	todov1 "tidemark.dev/clients/go/gen/todo/v1"
	"tidemark.dev/clients/go/todos"
)

const usage = `usage:
  todos get NAME ADDRESS...      reads one todo
  todos tour LIST ADDRESS...     shows each call once
  todos mirror LIST ADDRESS...   follows a list until the end of its input`

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "todos: %s\n", describe(err))
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 3 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	client, err := todos.Connect(strings.Join(args[2:], ","))
	if err != nil {
		return err
	}
	defer client.Close()
	switch args[0] {
	case "get":
		return get(ctx, client, args[1])
	case "tour":
		return tour(ctx, client, args[1], args[2:])
	case "mirror":
		return mirror(ctx, client, args[1])
	}
	return fmt.Errorf("no such command: %s", args[0])
}

func get(ctx context.Context, client *todos.Client, name string) error {
	reply, err := client.Get(ctx, name)
	if err != nil {
		return err
	}
	fmt.Println(reply.Todo.Title)
	return nil
}

func mirror(ctx context.Context, client *todos.Client, parent string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	mirror := client.Mirror(parent, todos.MirrorOptions{
		OnReady: func() { fmt.Println("following") },
		OnStale: func(err error) {
			if err == nil {
				fmt.Println("reset")
			} else {
				fmt.Println("lost:", describe(err))
			}
		},
		OnChange: func(name string, todo *todov1.Todo) {
			if todo == nil {
				fmt.Println("gone:", name)
			} else {
				fmt.Println("put:", name, todo.Title)
			}
		},
	})
	if err := mirror.Run(ctx); err != nil {
		return err
	}
	for _, todo := range mirror.Todos() {
		fmt.Printf("has: %s %s\n", todo.Name, todo.Title)
	}
	return nil
}

// describe chooses by the code and the reason. The message is for people.
func describe(err error) string {
	if failed := todos.AsTodoError(err); failed != nil {
		return fmt.Sprintf("%s %s", code.Code(failed.Code), failed.Reason)
	}
	return err.Error()
}
