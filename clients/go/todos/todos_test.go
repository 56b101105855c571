package todos_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	todov1 "tidemark.dev/clients/go/gen/todo/v1"
	"tidemark.dev/clients/go/todos"
)

func TestReadsSeeWritesOnAnyReplica(t *testing.T) {
	one, other, both := two(t, "go_reads")
	ctx := context.Background()
	client := connect(t, both)
	for n := range 30 {
		title := strconv.Itoa(n)
		created, err := client.Create(ctx, "lists/home", &todov1.Todo{Title: title})
		if err != nil {
			t.Fatal(err)
		}
		// Round robin: these go to different replicas.
		for range 2 {
			read, err := client.Get(ctx, created.Name)
			if err != nil || read.Todo.Title != title {
				t.Fatalf("%d: read %v, %v", n, read, err)
			}
		}
		listed := 0
		for _, err := range client.List(ctx, "lists/home") {
			if err != nil {
				t.Fatal(err)
			}
			listed++
		}
		if listed != n+1 {
			t.Fatalf("listed %d todos after %d writes", listed, n+1)
		}
	}
	// The same across two clients, when one passes its token on.
	first := connect(t, one.address)
	todo := create(t, first, "handed", "over")
	second := connect(t, other.address, todos.WithToken(first.Token()))
	if read, err := second.Get(ctx, todo.Name); err != nil || read.Todo.Title != "over" {
		t.Fatalf("read %v, %v", read, err)
	}
	// Sessions of one client are apart.
	session := client.NewSession("")
	if session.Token() != "" {
		t.Error("a new session has a token")
	}
	if _, err := session.Get(ctx, todo.Name); err != nil || session.Token() == "" {
		t.Errorf("a session keeps no token: %v", err)
	}
}

// The service closes each connection at its age, here every second, with GOAWAY.
func TestCallsOutliveTheirConnections(t *testing.T) {
	r := startReplicaWith(t, "go_age", []string{"--max-connection-age", "1s"})
	client := connect(t, r.address)
	ctx, end := context.Background(), time.Now().Add(6*time.Second)
	todo, err := client.Create(ctx, "lists/home", &todov1.Todo{Title: "x"})
	if err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	var reads atomic.Int64
	for range 4 {
		readers.Go(func() {
			for ; time.Now().Before(end); reads.Add(1) {
				if _, err := client.Get(ctx, todo.Name); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	readers.Wait()
	if n := reads.Load(); n < 100 {
		t.Errorf("only %d reads", n)
	}
}

func TestErrors(t *testing.T) {
	replica := startReplica(t, "go_errors")
	client, ctx := connect(t, replica.address), context.Background()

	_, err := client.Get(ctx, "lists/home/todos/none")
	failed := todos.AsTodoError(err)
	if failed == nil || failed.Code != codes.NotFound || failed.Reason != todov1.ErrorReason_ERROR_REASON_TODO_NOT_FOUND {
		t.Fatalf("not the error of a missing todo: %v", err)
	}
	if failed.Metadata["name"] != "lists/home/todos/none" || failed.Metadata["token"] != client.Token() {
		t.Errorf("metadata %v, token %s", failed.Metadata, client.Token())
	}
	if status.Code(err) != codes.NotFound {
		t.Error("status.Code does not know the error")
	}

	_, err = client.Create(ctx, "lists/home", &todov1.Todo{})
	failed = todos.AsTodoError(err)
	if failed == nil || failed.Reason != todov1.ErrorReason_ERROR_REASON_FIELD_INVALID {
		t.Fatalf("not the error of a field: %v", err)
	}
	if len(failed.Fields) != 1 || failed.Fields[0].Field != "todo.title" || failed.Fields[0].Description == "" {
		t.Errorf("fields %v", failed.Fields)
	}

	todo := create(t, client, "milk", "Buy milk")
	if _, err = client.Update(ctx, &todov1.Todo{Name: todo.Name, Title: "Buy oat milk", Etag: todo.Etag}, "title"); err != nil {
		t.Fatal(err)
	}
	_, err = client.Update(ctx, &todov1.Todo{Name: todo.Name, Title: "Buy soy milk", Etag: todo.Etag}, "title")
	if failed = todos.AsTodoError(err); failed == nil || failed.Reason != todov1.ErrorReason_ERROR_REASON_ETAG_MISMATCH {
		t.Fatalf("not the error of an etag: %v", err)
	}
	if err := client.Delete(ctx, todo.Name); err != nil {
		t.Fatal(err)
	}

	// A token of nobody is refused once; the session goes on without it.
	stranger := connect(t, replica.address, todos.WithToken("AAAA"))
	if _, err := stranger.Get(ctx, todo.Name); todos.AsTodoError(err).Reason != todov1.ErrorReason_ERROR_REASON_TOKEN_INVALID {
		t.Errorf("not the error of a token: %v", err)
	}
	if _, err := stranger.Get(ctx, todo.Name); todos.AsTodoError(err).Reason != todov1.ErrorReason_ERROR_REASON_TODO_NOT_FOUND {
		t.Errorf("the session keeps a refused token: %v", err)
	}
}

func TestDeadlines(t *testing.T) {
	replica := startReplica(t, "go_deadlines")
	ctx := context.Background()
	client := connect(t, replica.address, todos.WithTimeout(500*time.Millisecond))
	todo := create(t, connect(t, replica.address), "milk", "Buy milk")
	// Connects before the replica is frozen.
	eventually(t, "a read in time", func() bool { _, err := client.Get(ctx, todo.Name); return err == nil })
	replica.freeze()
	for _, timeout := range []time.Duration{0, 200 * time.Millisecond} {
		started, call := time.Now(), ctx
		if timeout > 0 {
			var cancel context.CancelFunc
			call, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
		_, err := client.Get(call, todo.Name)
		if failed := todos.AsTodoError(err); failed == nil || failed.Code != codes.DeadlineExceeded {
			t.Errorf("not the error of a deadline: %v", err)
		}
		if took := time.Since(started); took < 150*time.Millisecond || took > 3*time.Second {
			t.Errorf("a frozen replica was waited for for %s", took)
		}
	}
}

func TestListsOf2500Todos(t *testing.T) {
	_, _, both := two(t, "go_pages")
	replica := startReplica(t, "go_pages")
	importTodos(t, replica, 2500)
	client := connect(t, both)
	request := &todov1.ListTodosRequest{Parent: "lists/many", Consistency: todos.FullyConsistent()}
	for _, size := range []int32{0, 333, 1000} {
		request.PageSize = size
		var names []string
		for todo, err := range client.ListRequest(context.Background(), request) {
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, todo.Name)
		}
		slices.Sort(names)
		if names = slices.Compact(names); len(names) != 2500 {
			t.Errorf("%d todos in pages of %d", len(names), size)
		}
	}
	for range client.List(context.Background(), "lists/many") {
		break // Stops asking for pages.
	}

	mirror := client.Mirror("lists/many", todos.MirrorOptions{MaxBytes: 10_000})
	if err := mirror.Run(context.Background()); err == nil || todos.AsTodoError(err) != nil {
		t.Errorf("a list over the bound: %v", err)
	}
}

func TestLists(t *testing.T) {
	client, ctx := connect(t, startReplica(t, "go_lists").address), context.Background()
	list, err := client.CreateList(ctx, "work", &todos.TodoList{Title: "Work"})
	if err != nil || list.Name != "lists/work" {
		t.Fatalf("created %v, %v", list, err)
	}
	if list, err = client.UpdateList(ctx, &todos.TodoList{Name: list.Name, Title: "Office", Etag: list.Etag}, "title"); err != nil {
		t.Fatal(err)
	}
	if got, err := client.GetList(ctx, list.Name); err != nil || got.Title != "Office" {
		t.Errorf("read %v, %v", got, err)
	}
	if _, err := client.Create(ctx, list.Name, &todos.Todo{Title: "Write"}); err != nil {
		t.Fatal(err)
	}
	var names []string
	for list, err := range client.Lists(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, list.Name)
	}
	if !slices.Equal(names, []string{"lists/work"}) {
		t.Errorf("lists %v", names)
	}
	err = client.DeleteList(ctx, list.Name, false)
	if failed := todos.AsTodoError(err); failed == nil || failed.Reason != todov1.ErrorReason_ERROR_REASON_LIST_NOT_EMPTY {
		t.Errorf("not the error of a list with todos: %v", err)
	}
	if err := client.DeleteList(ctx, list.Name, true); err != nil {
		t.Error(err)
	}
}

// newKey returns an API key and its line for --keys-file.
func newKey(t *testing.T, principal string) (key, line string) {
	t.Helper()
	output, err := exec.Command(setting(t, "SERVICE_BINARY"), "key", "new", principal).Output()
	if err != nil {
		t.Fatal(err)
	}
	key, line, _ = strings.Cut(string(output), "\n")
	return key, line
}

func TestTLSAndCredentials(t *testing.T) {
	certificates := setting(t, "CERTIFICATES") + "/"
	mutual, err := todos.TLSFiles(certificates+"ca.pem", certificates+"client.pem", certificates+"client.key")
	if err != nil {
		t.Fatal(err)
	}
	adasKey, adasLine := newKey(t, "user:ada")
	bobsKey, bobsLine := newKey(t, "user:bob")
	keys := t.TempDir() + "/keys"
	if err := os.WriteFile(keys, []byte(adasLine+bobsLine), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"--tls-cert", certificates + "service.pem", "--tls-key", certificates + "service.key",
		"--tls-client-ca", certificates + "ca.pem", "--auth", "keys", "--keys-file", keys,
	}
	tls, ctx := todos.WithTLS(mutual), context.Background()
	one := startReplicaWith(t, "go_tls", args, tls, todos.WithBearer(adasKey))
	other := startReplicaWith(t, "go_tls", args, tls, todos.WithBearer(adasKey))
	both := one.address + "," + other.address

	ada := connect(t, both, tls, todos.WithBearer(adasKey))
	list, err := ada.CreateList(ctx, "ada", &todos.TodoList{Title: "Ada's"})
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if _, err := ada.Create(ctx, list.Name, &todos.Todo{Title: "Compute"}); err != nil {
			t.Fatal(err)
		}
	}
	mirror := ada.Mirror(list.Name, todos.MirrorOptions{})
	following, stop := context.WithCancel(ctx)
	defer stop()
	go mirror.Run(following)
	eventually(t, "a mirror with credentials", func() bool { return len(mirror.Todos()) == 4 && mirror.Ready() })

	err = connect(t, both, tls, todos.WithBearer(bobsKey)).Mirror(list.Name, todos.MirrorOptions{}).Run(ctx)
	if failed := todos.AsTodoError(err); failed == nil || failed.Reason != todov1.ErrorReason_ERROR_REASON_PERMISSION_DENIED {
		t.Errorf("not the error of a missing right: %v", err)
	}
	_, err = connect(t, both, tls).Get(ctx, list.Name+"/todos/a")
	if failed := todos.AsTodoError(err); failed == nil || failed.Reason != todov1.ErrorReason_ERROR_REASON_CALLER_UNKNOWN {
		t.Errorf("not the error of a missing key: %v", err)
	}
	oneWay, err := todos.TLSFiles(certificates+"ca.pem", "", "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = connect(t, both, todos.WithTLS(oneWay), todos.WithTimeout(2*time.Second)).Get(ctx, list.Name+"/todos/a")
	if failed := todos.AsTodoError(err); failed == nil || failed.Reason != todov1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		t.Errorf("a client without a certificate was served: %v", err)
	}
}

// following is what the callbacks of a mirror reported.
type following struct {
	mutex  sync.Mutex
	ready  int
	resets int
	lost   []todov1.ErrorReason
	newest int
	errors []string
}

func (f *following) options() todos.MirrorOptions {
	locked := func(do func()) {
		f.mutex.Lock()
		defer f.mutex.Unlock()
		do()
	}
	return todos.MirrorOptions{
		OnReady: func() { locked(func() { f.ready++ }) },
		OnStale: func(err error) {
			locked(func() {
				if err == nil {
					f.resets++
				} else {
					f.lost = append(f.lost, todos.AsTodoError(err).Reason)
				}
			})
		},
		OnChange: func(name string, todo *todov1.Todo) {
			if name != "lists/home/todos/counter" || todo == nil {
				return
			}
			locked(func() {
				n, err := strconv.Atoi(todo.Title)
				if err != nil || n < f.newest {
					f.errors = append(f.errors, fmt.Sprintf("%s after %d: %v", todo.Title, f.newest, err))
				}
				f.newest = n
			})
		},
	}
}

func (f *following) count(what func() int) int {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return what()
}

// countUp writes one number after the other into a todo until the context ends.
func countUp(ctx context.Context, client *todos.Client) {
	for n := 1; ctx.Err() == nil; n++ {
		todo := &todov1.Todo{Name: "lists/home/todos/counter", Title: strconv.Itoa(n)}
		_, _ = client.Update(ctx, todo, "title")
		time.Sleep(5 * time.Millisecond)
	}
}

func TestMirrorThroughBreaksDrainsAndResets(t *testing.T) {
	one, other, both := two(t, "go_mirror")
	client, ctx := connect(t, both), context.Background()
	for _, id := range []string{"a", "b"} {
		create(t, client, id, "todo "+id)
	}
	create(t, client, "counter", "0")
	var seen following
	mirror := connect(t, both).Mirror("lists/home", seen.options())
	following, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- mirror.Run(following) }()
	eventually(t, "readiness", mirror.Ready)

	writing, stopWriting := context.WithCancel(ctx)
	written := make(chan struct{})
	go func() { countUp(writing, client.NewSession("")); close(written) }()
	appears := func(id string) {
		t.Helper()
		create(t, client, id, "todo "+id)
		eventually(t, id, func() bool { return mirror.Get("lists/home/todos/"+id) != nil })
	}
	appears("c")
	// Wherever the watch is, it is lost both ways: by a break, and by a drain.
	one.kill()
	appears("d")
	one.start()
	other.drain()
	appears("e")
	other.start()
	one.kill()
	// The replica that was killed may have had the call: a delete is not repeated by the
	// library, since nobody knows whether it took place.
	eventually(t, "a delete", func() bool {
		err := client.Delete(ctx, "lists/home/todos/a")
		return err == nil || status.Code(err) == codes.NotFound
	})
	appears("f")
	eventually(t, "the deletion", func() bool { return mirror.Get("lists/home/todos/a") == nil })
	one.start()
	// A write that the killed replica had begun may keep the next ones waiting for seconds.
	eventually(t, "updates", func() bool { return seen.count(func() int { return seen.newest }) > 10 })
	stopWriting()
	<-written
	equalsTheList(t, mirror, client)

	drop(t, "go_mirror")
	eventually(t, "the reset", func() bool { return seen.count(func() int { return seen.resets }) > 0 })
	appears("g")
	equalsTheList(t, mirror, client)
	if count := len(mirror.Todos()); count != 1 {
		t.Errorf("%d todos after all were dropped", count)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, reason := range []todov1.ErrorReason{todov1.ErrorReason_ERROR_REASON_DRAINING, todov1.ErrorReason_ERROR_REASON_UNSPECIFIED} {
		if !slices.Contains(seen.lost, reason) {
			t.Errorf("no %s among %v", reason, seen.lost)
		}
	}
	if len(seen.errors) > 0 {
		t.Errorf("the mirror went back: %v", seen.errors)
	}
}

func drop(t *testing.T, database string) {
	t.Helper()
	run(t, "", "sh", "-c", setting(t, "MONGOSH")+` "$0" --quiet --eval 'db.todos.drop()'`, databaseURI(t, database))
}

func equalsTheList(t *testing.T, mirror *todos.Mirror, client *todos.Client) {
	t.Helper()
	eventually(t, "the same list", func() bool {
		var listed []string
		request := &todov1.ListTodosRequest{Parent: "lists/home", Consistency: todos.FullyConsistent()}
		for todo, err := range client.ListRequest(context.Background(), request) {
			if err != nil {
				return false
			}
			listed = append(listed, todo.Name+todo.Etag)
		}
		var shown []string
		for _, todo := range mirror.Todos() {
			shown = append(shown, todo.Name+todo.Etag)
		}
		slices.Sort(listed)
		slices.Sort(shown)
		return slices.Equal(listed, shown)
	})
}

func TestMirrorEndsWhenRepetitionIsNoUse(t *testing.T) {
	replica := startReplica(t, "go_mirror_ends")
	err := connect(t, replica.address).Mirror("no list", todos.MirrorOptions{}).Run(context.Background())
	if failed := todos.AsTodoError(err); failed == nil || failed.Reason != todov1.ErrorReason_ERROR_REASON_FIELD_INVALID {
		t.Errorf("not the error of a name: %v", err)
	}
}
