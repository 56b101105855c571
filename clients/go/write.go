package main

import (
	"context"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	todov1 "tidemark/gen/todo/v1"
)

// create writes a todo once, however often it has to ask. The service config
// does not retry writes, because it cannot know what is known here: the request
// has an id, and with the same id the service never writes twice.
func create(ctx context.Context, client todov1.TodoServiceClient, parent string, todo *todov1.Todo) (*todov1.CreateTodoResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	request := &todov1.CreateTodoRequest{Parent: parent, Todo: todo, RequestId: uuid.NewString()}
	for pause := firstPause; ; pause *= 2 {
		reply, err := client.CreateTodo(ctx, request)
		if status.Code(err) != codes.Unavailable {
			return reply, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
	}
}

// update writes the fields that are set, if the todo still is as its etag says.
// It has no request id: another try is safe only if the first had no effect.
func update(ctx context.Context, client todov1.TodoServiceClient, todo *todov1.Todo) (*todov1.UpdateTodoResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for pause := firstPause; ; pause *= 2 {
		reply, err := client.UpdateTodo(ctx, &todov1.UpdateTodoRequest{Todo: todo})
		if err == nil || !hadNoEffect(err) {
			return reply, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
	}
}
