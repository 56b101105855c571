package dev.tidemark.todos;

import dev.tidemark.todo.v1.Consistency;
import dev.tidemark.todo.v1.CreateTodoResponse;
import dev.tidemark.todo.v1.ErrorReason;
import dev.tidemark.todo.v1.GetTodoRequest;
import dev.tidemark.todo.v1.GetTodoResponse;
import dev.tidemark.todo.v1.ListTodosRequest;
import dev.tidemark.todo.v1.ListTodosResponse;
import dev.tidemark.todo.v1.ReadInfo;
import dev.tidemark.todo.v1.Todo;
import dev.tidemark.todo.v1.TodoServiceGrpc;
import dev.tidemark.todo.v1.TodoServiceGrpc.TodoServiceBlockingStub;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** Each call once, with deadlines, in a list of its own. */
final class Tour {
  private final String parent;
  private final TodoServiceBlockingStub client;

  private Tour(String parent, TodoServiceBlockingStub client) {
    this.parent = parent;
    this.client = client;
  }

  static void run(String parent, List<String> addresses) {
    ManagedChannel channel = Channels.connect(addresses);
    try {
      Tour tour = new Tour(parent, TodoServiceGrpc.newBlockingStub(channel));
      tour.writeAndRead();
      tour.listInPages();
      tour.readManyTimes();
      tour.errorsByReason();
      tour.tooShortADeadline();
    } finally {
      channel.shutdownNow();
    }
    onAnotherReplica(parent, addresses);
  }

  private void writeAndRead() {
    create("Buy milk", Todo.Priority.PRIORITY_NORMAL);
    create("Read a book", Todo.Priority.PRIORITY_HIGH);
    CreateTodoResponse last = create("Water the plants", Todo.Priority.PRIORITY_URGENT);
    GetTodoResponse reply = get(last.getTodo().getName(), Calls.atLeastAsFresh(last.getToken()));
    ReadInfo read = reply.getRead();
    Duration bound =
        Duration.ofSeconds(read.getStalenessBound().getSeconds(), read.getStalenessBound().getNanos());
    System.out.printf(
        "get: %s, from %s, misses nothing older than %s%n",
        reply.getTodo().getTitle(), read.getSource(), bound);
  }

  private CreateTodoResponse create(String title, Todo.Priority priority) {
    Todo todo = Todo.newBuilder().setTitle(title).setPriority(priority).addLabels("tour").build();
    return Writes.create(client, parent, todo);
  }

  private GetTodoResponse get(String name, Consistency consistency) {
    GetTodoRequest request =
        GetTodoRequest.newBuilder().setName(name).setConsistency(consistency).build();
    return Calls.soon(client).getTodo(request);
  }

  private void listInPages() {
    ListTodosRequest.Builder request =
        ListTodosRequest.newBuilder()
            .setParent(parent)
            .setPageSize(2)
            .setFilter("state = ACTIVE AND labels:\"tour\"")
            .setOrderBy("priority desc")
            .setConsistency(Consistency.newBuilder().setFullyConsistent(true));
    ListTodosResponse page;
    do {
      page = Calls.soon(client).listTodos(request.build());
      for (Todo todo : page.getTodosList()) {
        System.out.printf("list: %s %s%n", todo.getPriority(), todo.getTitle());
      }
      request.setPageToken(page.getNextPageToken());
    } while (!page.getNextPageToken().isEmpty());
  }

  /** Goes round all replicas that are healthy. */
  private void readManyTimes() {
    for (int n = 0; n < 20; n++) {
      Calls.soon(client).listTodos(ListTodosRequest.newBuilder().setParent(parent).build());
    }
    System.out.println("read: 20 times");
  }

  /** Does what a program would do: chooses by the reason, not by the text. */
  private void errorsByReason() {
    Todo created = Writes.create(client, parent, Todo.newBuilder().setTitle("Call home").build()).getTodo();
    Todo todo =
        Todo.newBuilder()
            .setName(created.getName())
            .setTitle("Call home at six")
            .setEtag(created.getEtag())
            .build();
    Writes.update(client, todo);
    try {
      Writes.update(client, todo); // The etag is that of before the update.
    } catch (StatusRuntimeException error) {
      Map<String, String> values = told(error, ErrorReason.ERROR_REASON_ETAG_MISMATCH);
      // With the refusal's token, the next read is not older than the refusal.
      Todo now = get(todo.getName(), Calls.atLeastAsFresh(values.get("token"))).getTodo();
      System.out.println("refused: ERROR_REASON_ETAG_MISMATCH, it is now: " + now.getTitle());
    }
    try {
      get(parent + "/todos/none", Consistency.getDefaultInstance());
    } catch (StatusRuntimeException error) {
      Map<String, String> values = told(error, ErrorReason.ERROR_REASON_TODO_NOT_FOUND);
      System.out.println("refused: ERROR_REASON_TODO_NOT_FOUND, says " + values.get("source"));
    }
    try {
      ListTodosRequest request =
          ListTodosRequest.newBuilder().setParent(parent).setFilter("colour = RED").build();
      Calls.soon(client).listTodos(request);
    } catch (StatusRuntimeException error) {
      Map<String, String> values = told(error, ErrorReason.ERROR_REASON_FILTER_INVALID);
      System.out.println("refused: ERROR_REASON_FILTER_INVALID at character " + values.get("position"));
    }
  }

  /** The values of an error that has this reason; any other is thrown again. */
  private static Map<String, String> told(StatusRuntimeException error, ErrorReason expected) {
    Errors.Why why = Errors.why(error);
    if (why.reason() != expected) {
      throw error;
    }
    return why.values();
  }

  private void tooShortADeadline() {
    try {
      client
          .withDeadlineAfter(1, TimeUnit.MICROSECONDS)
          .listTodos(ListTodosRequest.newBuilder().setParent(parent).build());
    } catch (StatusRuntimeException error) {
      System.out.println("too short a deadline: " + Errors.code(error));
    }
  }

  /**
   * Writes at the first replica and reads at the second. The token makes the second one wait until
   * it has seen the write.
   */
  private static void onAnotherReplica(String parent, List<String> addresses) {
    ManagedChannel first = Channels.connect(addresses.subList(0, 1));
    ManagedChannel second = Channels.connect(addresses.subList(1, 2));
    try {
      Todo todo = Todo.newBuilder().setTitle("Written at one replica").build();
      CreateTodoResponse written = Writes.create(TodoServiceGrpc.newBlockingStub(first), parent, todo);
      Tour there = new Tour(parent, TodoServiceGrpc.newBlockingStub(second));
      GetTodoResponse read =
          there.get(written.getTodo().getName(), Calls.atLeastAsFresh(written.getToken()));
      System.out.println("at another replica: " + read.getTodo().getTitle());
    } finally {
      first.shutdownNow();
      second.shutdownNow();
    }
  }
}
