package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // Without it, healthCheckConfig has no effect.
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/resolver/dns"
	"google.golang.org/grpc/status"
	todov1 "tidemark.dev/clients/go/gen/todo/v1"
)

const (
	maxRate     = 1000
	maxDuration = 5 * time.Minute
	callTimeout = 5 * time.Second
	// Todos of the list that the calls read and write.
	todos = 20
	// Failures printed in full.
	printedFailures = 10
)

// The config that clients/ publishes: round robin, health checks, retries of reads.
//
//go:embed service_config.json
var serviceConfig string

type settings struct {
	target, mode, name, ca string
	tokenFile, token       string
	rate, channels         int
	duration, resolve      time.Duration
	watch                  bool
}

func parse(arguments []string) settings {
	var s settings
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	flags.StringVar(&s.target, "target", "dns:///tidemark-headless.tidemark.svc.cluster.local:50051", "gRPC target")
	flags.StringVar(&s.mode, "mode", "config", "config: the published service config; plain: gRPC's defaults without retries")
	flags.StringVar(&s.name, "name", "load", "list that the calls use")
	flags.StringVar(&s.ca, "ca", "", "enables TLS: file with PEM certificates of the authority, - for stdin")
	flags.StringVar(&s.tokenFile, "token-file", "", "file with a token that each call carries; read for each call")
	flags.StringVar(&s.token, "token", "", "the token or API key itself")
	flags.IntVar(&s.rate, "rate", 40, "calls per second, at most 1000")
	flags.IntVar(&s.channels, "channels", 1, "gRPC channels, each with connections of its own")
	flags.DurationVar(&s.duration, "duration", 30*time.Second, "at most 5m")
	flags.DurationVar(&s.resolve, "resolve", 0, "least time between resolutions of a name; 0: gRPC's 30 s")
	flags.BoolVar(&s.watch, "watch", false, "watch the list meanwhile, and verify that no change is missing")
	_ = flags.Parse(arguments)
	s.rate = min(s.rate, maxRate)
	s.duration = min(s.duration, maxDuration)
	return s
}

type result struct {
	Calls     int            `json:"calls"`
	Failed    int            `json:"failed"`
	Failures  map[string]int `json:"failures,omitempty"`
	Peers     map[string]int `json:"peers"`
	LastPeers map[string]int `json:"last_peers"`
	P50       float64        `json:"p50_ms"`
	P99       float64        `json:"p99_ms"`
	Max       float64        `json:"max_ms"`
	Watch     *watchResult   `json:"watch,omitempty"`
}

type recorder struct {
	mutex     sync.Mutex
	result    result
	latencies []time.Duration
	last      []string
}

// Peers of the last calls only, to see whether a new replica gets its share.
const lastCalls = 400

func (r *recorder) add(kind string, at time.Time, from peer.Peer, err error) {
	took := time.Since(at)
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.result.Calls++
	r.latencies = append(r.latencies, took)
	if from.Addr != nil {
		address := from.Addr.String()
		r.result.Peers[address]++
		r.last = append(r.last, address)
		if len(r.last) > lastCalls {
			r.last = r.last[1:]
		}
	}
	if err != nil {
		r.result.Failed++
		r.result.Failures[kind+" "+status.Code(err).String()]++
		if r.result.Failed <= printedFailures {
			fmt.Fprintln(os.Stderr, at.UTC().Format("15:04:05.000"), kind, "failed after", took.Round(time.Millisecond), from.Addr, err)
		}
	}
}

func (r *recorder) finish() result {
	sort.Slice(r.latencies, func(i, j int) bool { return r.latencies[i] < r.latencies[j] })
	quantile := func(q float64) float64 {
		if len(r.latencies) == 0 {
			return 0
		}
		return float64(r.latencies[int(q*float64(len(r.latencies)-1))].Microseconds()) / 1000
	}
	r.result.P50, r.result.P99, r.result.Max = quantile(0.5), quantile(0.99), quantile(1)
	for _, address := range r.last {
		r.result.LastPeers[address]++
	}
	return r.result
}

func (s settings) isCaller() bool { return s.token != "" || s.tokenFile != "" }

// GetRequestMetadata reads the file for each call: the kubelet replaces it before the
// token expires.
func (s settings) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token := s.token
	if s.tokenFile != "" {
		text, err := os.ReadFile(s.tokenFile)
		if err != nil {
			return nil, err
		}
		token = strings.TrimSpace(string(text))
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity is false because a mesh may encrypt.
func (settings) RequireTransportSecurity() bool { return false }

func connections(s settings) ([]todov1.TodoServiceClient, error) {
	if s.resolve > 0 {
		dns.SetMinResolutionInterval(s.resolve)
	}
	var security credentials.TransportCredentials = insecure.NewCredentials()
	if s.ca != "" {
		file := s.ca
		if file == "-" {
			file = "/dev/stdin"
		}
		var err error
		if security, err = credentials.NewClientTLSFromFile(file, ""); err != nil {
			return nil, err
		}
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(security),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
	}
	if s.isCaller() {
		options = append(options, grpc.WithPerRPCCredentials(s))
	}
	if s.mode == "config" {
		options = append(options, grpc.WithDefaultServiceConfig(serviceConfig))
	} else {
		options = append(options, grpc.WithDisableRetry())
	}
	var clients []todov1.TodoServiceClient
	for range s.channels {
		channel, err := grpc.NewClient(s.target, options...)
		if err != nil {
			return nil, err
		}
		clients = append(clients, todov1.NewTodoServiceClient(channel))
	}
	return clients, nil
}

func prepare(client todov1.TodoServiceClient, s settings, list string) error {
	if s.isCaller() {
		// With authentication on, todos need a list that exists.
		ctx, cancel := context.WithTimeout(context.Background(), 4*callTimeout)
		defer cancel()
		_, err := client.CreateTodoList(ctx, &todov1.CreateTodoListRequest{
			TodoListId: s.name, RequestId: uuid.NewString(), TodoList: &todov1.TodoList{Title: s.name},
		}, grpc.WaitForReady(true))
		if err != nil && status.Code(err).String() != "AlreadyExists" {
			return err
		}
	}
	for i := range todos {
		ctx, cancel := context.WithTimeout(context.Background(), 4*callTimeout)
		_, err := client.CreateTodo(ctx, &todov1.CreateTodoRequest{
			Parent: list, TodoId: fmt.Sprint("t", i), RequestId: uuid.NewString(), Todo: &todov1.Todo{Title: "new"},
		}, grpc.WaitForReady(true))
		cancel()
		if err != nil && status.Code(err).String() != "AlreadyExists" {
			return err
		}
	}
	return nil
}

// One call: 1 in 20 is an update, 1 a strong read, 1 a page, the rest cached reads.
func call(ctx context.Context, client todov1.TodoServiceClient, list string, n int, from *peer.Peer) (string, error) {
	todo := fmt.Sprint(list, "/todos/t", rand.Intn(todos))
	var err error
	switch n % 20 {
	case 0:
		_, err = client.UpdateTodo(ctx, &todov1.UpdateTodoRequest{
			Todo: &todov1.Todo{Name: todo, Title: fmt.Sprint("n", n)}, RequestId: uuid.NewString(),
		}, grpc.Peer(from))
		return "update", err
	case 1:
		_, err = client.GetTodo(ctx, &todov1.GetTodoRequest{Name: todo, Consistency: strong()}, grpc.Peer(from))
		return "strong read", err
	case 2:
		_, err = client.ListTodos(ctx, &todov1.ListTodosRequest{Parent: list, PageSize: 10}, grpc.Peer(from))
		return "list", err
	default:
		_, err = client.GetTodo(ctx, &todov1.GetTodoRequest{Name: todo}, grpc.Peer(from))
		return "read", err
	}
}

func strong() *todov1.Consistency {
	return &todov1.Consistency{Requirement: &todov1.Consistency_FullyConsistent{FullyConsistent: true}}
}

func load(arguments []string) int {
	s := parse(arguments)
	clients, err := connections(s)
	list := "lists/" + s.name
	if err == nil {
		err = prepare(clients[0], s, list)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "client: cannot start:", err)
		return 1
	}
	records := &recorder{result: result{Failures: map[string]int{}, Peers: map[string]int{}, LastPeers: map[string]int{}}}
	var follower *watcher
	if s.watch {
		follower = watch(clients[0], list)
	}
	var running sync.WaitGroup
	ticker := time.NewTicker(time.Second / time.Duration(s.rate))
	began := time.Now()
	for n := 0; time.Since(began) < s.duration; n++ {
		<-ticker.C
		running.Add(1)
		go func() {
			defer running.Done()
			ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
			defer cancel()
			var from peer.Peer
			at := time.Now()
			kind, err := call(ctx, clients[n%len(clients)], list, n, &from)
			records.add(kind, at, from, err)
		}()
	}
	running.Wait()
	summary := records.finish()
	if follower != nil {
		summary.Watch = follower.finish(clients[0], list)
	}
	text, _ := json.Marshal(summary)
	fmt.Println(string(text))
	return 0
}
