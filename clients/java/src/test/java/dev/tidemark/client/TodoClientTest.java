package dev.tidemark.client;

import static dev.tidemark.client.Replica.eventually;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.todo.v1.CreateTodoRequest;
import dev.tidemark.todo.v1.DeleteTodoRequest;
import dev.tidemark.todo.v1.GetTodoRequest;
import dev.tidemark.todo.v1.ListTodosRequest;
import dev.tidemark.todo.v1.Todo;
import dev.tidemark.todo.v1.TodoList;
import dev.tidemark.todo.v1.TodoServiceGrpc;
import io.grpc.ChannelCredentials;
import io.grpc.Status;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.UnaryOperator;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;

/** The library against real replicas. */
class TodoClientTest {
  private static final Mirror.Listener NOBODY = new Mirror.Listener() {};

  private static TodoError refused(String reason, Executable call) {
    TodoError error = assertThrows(TodoError.class, call);
    assertEquals(reason, error.reason(), error.toString());
    return error;
  }

  private static Todo titled(String title) {
    return Todo.newBuilder().setTitle(title).build();
  }

  private static Todo create(TodoClient client, String id, String title) {
    return client.createTodo(
        CreateTodoRequest.newBuilder().setParent("lists/home").setTodoId(id).setTodo(titled(title)).build());
  }

  private static TodoClient both(Replica one, Replica other) {
    return patient(one.address() + "," + other.address()).build();
  }

  /** A machine under load may need longer than the default. */
  private static TodoClient.Builder patient(String addresses) {
    return TodoClient.builder(addresses).timeout(Duration.ofSeconds(30));
  }

  @Test
  void readsSeeWritesOnAnyReplica() throws Exception {
    try (Replica one = new Replica("java_reads");
        Replica other = new Replica("java_reads");
        TodoClient client = both(one, other);
        TodoClient first = patient(one.address()).build()) {
      for (int n = 0; n < 30; n++) {
        Todo todo = client.createTodo("lists/home", titled("" + n));
        // Round robin: these go to different replicas.
        assertEquals("" + n, client.getTodo(todo.getName()).getTodo().getTitle());
        assertEquals("" + n, client.getTodo(todo.getName()).getTodo().getTitle());
        assertEquals(n + 1, client.listTodos("lists/home").count());
      }
      // The same across two clients, when one passes its token on.
      Todo todo = create(first, "handed", "over");
      try (TodoClient second = patient(other.address()).token(first.token()).build()) {
        assertEquals("over", second.getTodo(todo.getName()).getTodo().getTitle());
      }
      TodoClient session = client.newSession("");
      assertEquals("", session.token());
      session.getTodo(todo.getName());
      assertFalse(session.token().isEmpty());
    }
  }

  /** The service closes each connection at its age, here every second, with GOAWAY. */
  @Test
  void callsOutliveTheirConnections() throws Exception {
    try (Replica replica = new Replica("java_age", List.of("--max-connection-age", "1s"), UnaryOperator.identity());
        TodoClient client = patient(replica.address()).build()) {
      Todo todo = client.createTodo("lists/home", titled("x"));
      long end = System.nanoTime() + Duration.ofSeconds(6).toNanos();
      List<Throwable> failures = new CopyOnWriteArrayList<>();
      AtomicInteger reads = new AtomicInteger();
      Runnable read = () -> {
        while (System.nanoTime() - end < 0) {
          client.getTodo(todo.getName());
          reads.incrementAndGet();
        }
      };
      List<Thread> readers = Stream.generate(() -> new Thread(read)).limit(4).toList();
      readers.forEach(reader -> {
        reader.setUncaughtExceptionHandler((thread, failure) -> failures.add(failure));
        reader.start();
      });
      for (Thread reader : readers) {
        reader.join();
      }
      assertEquals(List.of(), failures);
      assertTrue(reads.get() > 100, reads.toString());
    }
  }

  @Test
  void errorsHaveReasons() throws Exception {
    try (Replica replica = new Replica("java_errors");
        TodoClient client = patient(replica.address()).build();
        TodoClient stranger = patient(replica.address()).token("AAAA").build()) {
      TodoError missing = refused("TODO_NOT_FOUND", () -> client.getTodo("lists/home/todos/none"));
      assertEquals(Status.Code.NOT_FOUND, missing.code());
      assertEquals("lists/home/todos/none", missing.metadata().get("name"));
      assertEquals(client.token(), missing.metadata().get("token"));
      TodoError invalid = refused("FIELD_INVALID", () -> client.createTodo("lists/home", titled("")));
      assertEquals(List.of("todo.title"), invalid.fields().stream().map(TodoError.FieldProblem::field).toList());
      Todo milk = create(client, "milk", "Buy milk");
      client.updateTodo(milk.toBuilder().setTitle("Buy oat milk").build(), "title");
      refused("ETAG_MISMATCH", () -> client.updateTodo(milk.toBuilder().setTitle("x").build(), "title"));
      client.deleteTodo(milk.getName());
      // A token of nobody is refused once; the session goes on without it.
      refused("TOKEN_INVALID", () -> stranger.getTodo(milk.getName()));
      refused("TODO_NOT_FOUND", () -> stranger.getTodo(milk.getName()));
    }
  }

  @Test
  void deadlinesHold() throws Exception {
    try (Replica replica = new Replica("java_deadlines");
        TodoClient client = patient(replica.address()).build()) {
      // Connects before the replica is frozen.
      Todo milk = create(client, "milk", "Buy milk");
      replica.freeze();
      GetTodoRequest request = GetTodoRequest.newBuilder().setName(milk.getName()).build();
      for (int timeout : new int[] {500, 200}) {
        long started = System.nanoTime();
        Duration longest = Duration.ofMillis(timeout);
        TodoError late = refused("", () -> client.call(TodoServiceGrpc.getGetTodoMethod(), request, longest));
        assertEquals(Status.Code.DEADLINE_EXCEEDED, late.code());
        assertTrue(System.nanoTime() - started < 3_000_000_000L);
      }
    }
  }

  @Test
  void listsOf2500Todos() throws Exception {
    try (Replica one = new Replica("java_pages");
        Replica other = new Replica("java_pages");
        TodoClient client = both(one, other)) {
      one.importTodos(2500);
      for (int size : new int[] {0, 333, 1000}) {
        ListTodosRequest request =
            ListTodosRequest.newBuilder()
                .setParent("lists/many")
                .setPageSize(size)
                .setConsistency(TodoClient.fullyConsistent())
                .build();
        assertEquals(2500, client.listTodos(request).map(Todo::getName).distinct().count(), "pages of " + size);
      }
      assertThrows(Mirror.TooLarge.class, client.mirror("lists/many", NOBODY, 10_000)::run);
    }
  }

  @Test
  void lists() throws Exception {
    try (Replica replica = new Replica("java_lists");
        TodoClient client = patient(replica.address()).build()) {
      TodoList work = client.createTodoList("work", TodoList.newBuilder().setTitle("Work").build());
      assertEquals("lists/work", work.getName());
      client.updateTodoList(work.toBuilder().setTitle("Office").build(), "title");
      assertEquals("Office", client.getTodoList(work.getName()).getTitle());
      client.createTodo(work.getName(), titled("Write"));
      assertEquals(List.of("lists/work"), client.listTodoLists().map(TodoList::getName).toList());
      refused("LIST_NOT_EMPTY", () -> client.deleteTodoList(work.getName(), false));
      client.deleteTodoList(work.getName(), true);
    }
  }

  @Test
  void tlsAndCredentials(@TempDir Path folder) throws Exception {
    Path certificates = Path.of(Replica.setting("CERTIFICATES"));
    Path ca = certificates.resolve("ca.pem");
    ChannelCredentials tls =
        TodoClient.tlsFiles(ca, certificates.resolve("client.pem"), certificates.resolve("client.key"));
    String[] ada = Replica.newKey("user:ada");
    String[] bob = Replica.newKey("user:bob");
    Path keys = Files.writeString(folder.resolve("keys"), ada[1] + bob[1]);
    List<String> args =
        List.of(
            "--tls-cert", certificates.resolve("service.pem").toString(),
            "--tls-key", certificates.resolve("service.key").toString(),
            "--tls-client-ca", ca.toString(), "--auth", "keys", "--keys-file", keys.toString());
    try (Replica one = new Replica("java_tls", args, probe -> probe.tls(tls).bearer(ada[0]));
        Replica other = new Replica("java_tls", args, probe -> probe.tls(tls).bearer(ada[0]))) {
      String both = one.address() + "," + other.address();
      try (TodoClient adas = patient(both).tls(tls).bearer(() -> ada[0]).build();
          TodoClient bobs = patient(both).tls(tls).bearer(bob[0]).build();
          TodoClient nobodys = patient(both).tls(tls).build();
          TodoClient oneWay =
              patient(both).tls(TodoClient.tlsFiles(ca, null, null)).timeout(Duration.ofSeconds(2)).build()) {
        String name = adas.createTodoList("ada", TodoList.newBuilder().setTitle("Ada's").build()).getName();
        for (int n = 0; n < 4; n++) {
          adas.createTodo(name, titled("Compute"));
        }
        try (Mirror mirror = adas.mirror(name, NOBODY).start()) {
          assertTrue(mirror.awaitReady(Duration.ofSeconds(60)));
          assertEquals(4, mirror.todos().size());
        }
        refused("PERMISSION_DENIED", bobs.mirror(name, NOBODY)::run);
        refused("CALLER_UNKNOWN", () -> nobodys.getTodo(name + "/todos/a"));
        refused("", () -> oneWay.getTodo(name + "/todos/a"));
      }
    }
  }

  @Test
  void aMirrorEndsWhenRepetitionIsNoUse() throws Exception {
    try (Replica replica = new Replica("java_mirror_ends");
        TodoClient client = patient(replica.address()).build()) {
      refused("FIELD_INVALID", client.mirror("no list", NOBODY)::run);
    }
  }

  /** What the callbacks of a mirror reported. */
  private static final class Seen implements Mirror.Listener {
    private final List<String> lost = new CopyOnWriteArrayList<>();
    private final List<Integer> numbers = Collections.synchronizedList(new java.util.ArrayList<>());

    @Override
    public void onChange(String name, Optional<Todo> todo) {
      if (name.endsWith("/counter") && todo.isPresent()) {
        numbers.add(Integer.parseInt(todo.get().getTitle()));
      }
    }

    @Override
    public void onStale(Optional<TodoError> error) {
      lost.add(error.map(TodoError::reason).orElse("reset"));
    }
  }

  @Test
  void aMirrorThroughBreaksDrainsAndResets() throws Exception {
    Seen seen = new Seen();
    try (Replica one = new Replica("java_mirror");
        Replica other = new Replica("java_mirror");
        TodoClient client = both(one, other);
        TodoClient watching = both(one, other);
        Mirror mirror = watching.mirror("lists/home", seen)) {
      create(client, "a", "todo a");
      create(client, "counter", "0");
      assertTrue(mirror.start().awaitReady(Duration.ofSeconds(60)));
      AtomicBoolean stop = new AtomicBoolean();
      Thread writer = new Thread(() -> countUp(client.newSession(""), stop));
      writer.start();
      try {
        breakAndDrain(one, other, client, mirror);
        // A write that the killed replica had begun may keep the next ones waiting for seconds.
        eventually("updates", () -> List.copyOf(seen.numbers).stream().anyMatch(n -> n > 10));
      } finally {
        stop.set(true);
        writer.join();
      }
      equalsTheList(mirror, client);
      List<Integer> numbers = List.copyOf(seen.numbers);
      assertEquals(numbers.stream().sorted().toList(), numbers, "the mirror went back");

      one.drop();
      eventually("the reset", () -> seen.lost.contains("reset"));
      appears(client, mirror, "g");
      equalsTheList(mirror, client);
      assertEquals(List.of("todo g"), mirror.todos().stream().map(Todo::getTitle).toList());
    }
    assertTrue(seen.lost.containsAll(List.of("DRAINING", "")), "lost: " + seen.lost);
  }

  /** Wherever the watch is, it is lost both ways: by a break, and by a drain. */
  private static void breakAndDrain(Replica one, Replica other, TodoClient client, Mirror mirror)
      throws Exception {
    appears(client, mirror, "c");
    one.kill();
    appears(client, mirror, "d");
    one.start();
    other.drain();
    appears(client, mirror, "e");
    other.start();
    one.kill();
    // A deletion has no request id: it may be reported as lost.
    eventually("a deletion", () -> isDeleted(client, "lists/home/todos/a"));
    appears(client, mirror, "f");
    eventually("the deletion in the mirror", () -> mirror.get("lists/home/todos/a").isEmpty());
    one.start();
  }

  private static boolean isDeleted(TodoClient client, String name) {
    try {
      client.deleteTodo(DeleteTodoRequest.newBuilder().setName(name).setAllowMissing(true).build());
      return true;
    } catch (TodoError lost) {
      return false;
    }
  }

  private static void appears(TodoClient client, Mirror mirror, String id) throws Exception {
    create(client, id, "todo " + id);
    eventually(id, () -> mirror.get("lists/home/todos/" + id).isPresent());
  }

  private static void equalsTheList(Mirror mirror, TodoClient client) throws Exception {
    ListTodosRequest request =
        ListTodosRequest.newBuilder().setParent("lists/home").setConsistency(TodoClient.fullyConsistent()).build();
    eventually(
        "the same list",
        () -> tags(client.listTodos(request).toList()).equals(tags(mirror.todos())));
  }

  private static List<String> tags(List<Todo> todos) {
    return todos.stream().map(todo -> todo.getName() + todo.getEtag()).sorted().toList();
  }

  /** Writes one number after the other into a todo. */
  private static void countUp(TodoClient client, AtomicBoolean stop) {
    for (int n = 1; !stop.get(); n++) {
      try {
        client.updateTodo(titled("" + n).toBuilder().setName("lists/home/todos/counter").build(), "title");
        Thread.sleep(5);
      } catch (TodoError failed) {
        // The next number will do.
      } catch (InterruptedException interrupted) {
        return;
      }
    }
  }
}
