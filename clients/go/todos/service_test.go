package todos_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	todov1 "tidemark.dev/clients/go/gen/todo/v1"
	"tidemark.dev/clients/go/todos"
)

// Programs start slowly where two cores run everything.
const patience = 60 * time.Second

// setting is what clients/test says in the environment.
func setting(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set: run clients/test", name)
	}
	return value
}

// A replica of the service at an address that it keeps.
type replica struct {
	t        *testing.T
	database string
	address  string
	args     []string
	probe    []todos.Option
	process  *exec.Cmd
}

func databaseURI(t *testing.T, database string) string {
	// Another run finds an empty database.
	return strings.Replace(setting(t, "MONGODB_URI"), "/tour?", fmt.Sprintf("/%s_%d?", database, os.Getpid()), 1)
}

func startReplica(t *testing.T, database string) *replica {
	t.Helper()
	return startReplicaWith(t, database, nil)
}

// startReplicaWith starts it with more arguments. The options let a client in.
func startReplicaWith(t *testing.T, database string, args []string, probe ...todos.Option) *replica {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	r := &replica{t: t, database: database, address: listener.Addr().String(), args: args, probe: probe}
	r.start()
	t.Cleanup(r.kill)
	return r
}

func (r *replica) start() {
	r.t.Helper()
	r.process = exec.Command(setting(r.t, "SERVICE_BINARY"), "serve",
		"--mongodb-uri", databaseURI(r.t, r.database), "--redis-url", setting(r.t, "REDIS_URL"),
		"--listen", r.address, "--metrics-listen", "127.0.0.1:0")
	r.process.Args = append(r.process.Args, r.args...)
	r.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.process.Start(); err != nil {
		r.t.Fatal(err)
	}
	client := connect(r.t, r.address, r.probe...)
	eventually(r.t, "the replica", func() bool {
		_, err := client.BatchGet(context.Background(), []string{"lists/a/todos/a"})
		return err == nil || todos.AsTodoError(err).Code == codes.PermissionDenied
	})
}

// kill breaks the connections: SIGKILL.
func (r *replica) kill() {
	_ = r.process.Process.Kill()
	_ = r.process.Wait()
}

// drain ends the watches and then the process: SIGTERM.
func (r *replica) drain() {
	_ = r.process.Process.Signal(syscall.SIGTERM)
	_ = r.process.Wait()
}

// freeze stops the process. It stops a moment after the signal.
func (r *replica) freeze() {
	r.t.Helper()
	_ = r.process.Process.Signal(syscall.SIGSTOP)
	eventually(r.t, "the stop", func() bool {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.process.Process.Pid))
		return strings.Contains(string(stat), ") T ")
	})
}

func connect(t *testing.T, addresses string, options ...todos.Option) *todos.Client {
	t.Helper()
	// A machine under load may need longer than the default.
	options = append([]todos.Option{todos.WithTimeout(30 * time.Second)}, options...)
	client, err := todos.Connect(addresses, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !happened(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// run runs a program of the test environment to its end.
func run(t *testing.T, input string, words ...string) {
	t.Helper()
	command := exec.Command(words[0], words[1:]...)
	command.Stdin = strings.NewReader(input)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", words, err, output)
	}
}

func two(t *testing.T, database string) (one, other *replica, both string) {
	one, other = startReplica(t, database), startReplica(t, database)
	return one, other, one.address + "," + other.address
}

func create(t *testing.T, client *todos.Client, id, title string) *todov1.Todo {
	t.Helper()
	reply, err := client.Stub.CreateTodo(context.Background(), &todov1.CreateTodoRequest{
		Parent: "lists/home", TodoId: id, Todo: &todov1.Todo{Title: title},
	})
	if err != nil {
		t.Fatal(err)
	}
	return reply.Todo
}

func importTodos(t *testing.T, r *replica, count int) {
	t.Helper()
	var lines strings.Builder
	for n := range count {
		fmt.Fprintf(&lines, `{"name": "lists/many/todos/t%05d", "title": "todo %d"}`+"\n", n, n)
	}
	run(t, lines.String(), setting(t, "SERVICE_BINARY"), "import", "--mongodb-uri", databaseURI(t, r.database), "-")
}
