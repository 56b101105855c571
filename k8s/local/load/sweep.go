package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"

	todov1 "tidemark.dev/clients/go/gen/todo/v1"
)

const (
	batchSize   = 50
	concurrency = 4
)

type sweepResult struct {
	Todos   int            `json:"todos"`
	Missing int            `json:"missing"`
	Batches int            `json:"batches"`
	Failed  int            `json:"failed"`
	Sources map[string]int `json:"sources"`
	Error   string         `json:"error,omitempty"`
}

// sweep: reads every todo whose name is in the JSON lines of stdin, in batches.
func sweep(arguments []string) int {
	flags := flag.NewFlagSet("sweep", flag.ExitOnError)
	s := settings{mode: "config", channels: 1}
	flags.StringVar(&s.target, "target", "", "gRPC target: one replica")
	_ = flags.Parse(arguments)
	clients, err := connections(s)
	if err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		return 1
	}
	batches := make(chan []string)
	result := sweepResult{Sources: map[string]int{}}
	var mutex sync.Mutex
	var running sync.WaitGroup
	for range concurrency {
		running.Add(1)
		go func() {
			defer running.Done()
			for names := range batches {
				ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
				reply, err := clients[0].BatchGetTodos(ctx, &todov1.BatchGetTodosRequest{Names: names})
				cancel()
				mutex.Lock()
				result.Batches++
				if err != nil {
					result.Failed++
					result.Error = err.Error()
				} else {
					result.Todos += len(reply.Todos)
					result.Missing += len(reply.Missing)
					result.Sources[reply.Read.Source.String()]++
				}
				mutex.Unlock()
			}
		}()
	}
	lines := bufio.NewScanner(os.Stdin)
	var names []string
	for lines.Scan() {
		var todo struct{ Name string }
		if json.Unmarshal(lines.Bytes(), &todo) == nil && todo.Name != "" {
			names = append(names, todo.Name)
		}
		if len(names) == batchSize {
			batches <- names
			names = nil
		}
	}
	if len(names) > 0 {
		batches <- names
	}
	close(batches)
	running.Wait()
	text, _ := json.Marshal(result)
	fmt.Println(string(text))
	return 0
}

// fetch URL: prints what an HTTP server answers.
func fetch(url string) int {
	reply, err := http.Get(url)
	if err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		return 1
	}
	defer reply.Body.Close()
	if _, err := io.Copy(os.Stdout, reply.Body); err != nil || reply.StatusCode != http.StatusOK {
		fmt.Fprintln(os.Stderr, "client: HTTP", reply.StatusCode, err)
		return 1
	}
	return 0
}
