package todos

import (
	"context"
	"iter"

	"google.golang.org/protobuf/proto"

	todov1 "tidemark.dev/clients/go/gen/todo/v1"
)

// maxPageSize is the most todos that the service puts into a page.
const maxPageSize = 1000

// List iterates over all todos of a list (lists/{list}), page by page. ListRequest sets a
// filter, an order or a level. An error ends the iteration.
func (c *Client) List(ctx context.Context, parent string) iter.Seq2[*todov1.Todo, error] {
	return c.ListRequest(ctx, &todov1.ListTodosRequest{Parent: parent, PageSize: maxPageSize})
}

// ListRequest iterates over all todos that the request selects, from its page token on.
func (c *Client) ListRequest(ctx context.Context, request *todov1.ListTodosRequest) iter.Seq2[*todov1.Todo, error] {
	return func(yield func(*todov1.Todo, error) bool) {
		for page, err := range c.Pages(ctx, request) {
			if err != nil {
				yield(nil, err)
				return
			}
			for _, todo := range page.Todos {
				if !yield(todo, nil) {
					return
				}
			}
		}
	}
}

// Pages iterates over the pages themselves, which also state how fresh they are and which
// todos cannot be read. Each page has a deadline of its own.
func (c *Client) Pages(ctx context.Context, request *todov1.ListTodosRequest) iter.Seq2[*todov1.ListTodosResponse, error] {
	request = proto.CloneOf(request)
	start := request.PageToken
	return pages(func(token string) (*todov1.ListTodosResponse, error) {
		if token == "" {
			token = start
		}
		request.PageToken = token
		return c.Stub.ListTodos(ctx, request)
	})
}

// Lists iterates over all lists that the caller may read.
func (c *Client) Lists(ctx context.Context) iter.Seq2[*todov1.TodoList, error] {
	return func(yield func(*todov1.TodoList, error) bool) {
		request := &todov1.ListTodoListsRequest{PageSize: maxPageSize}
		all := pages(func(token string) (*todov1.ListTodoListsResponse, error) {
			request.PageToken = token
			return c.Stub.ListTodoLists(ctx, request)
		})
		for page, err := range all {
			if err != nil {
				yield(nil, err)
				return
			}
			for _, list := range page.TodoLists {
				if !yield(list, nil) {
					return
				}
			}
		}
	}
}

// pages iterates over the pages that read returns for a page token; the first has none.
func pages[P interface{ GetNextPageToken() string }](read func(token string) (P, error)) iter.Seq2[P, error] {
	return func(yield func(P, error) bool) {
		for token := ""; ; {
			page, err := read(token)
			if !yield(page, err) || err != nil {
				return
			}
			if token = page.GetNextPageToken(); token == "" {
				return
			}
		}
	}
}
