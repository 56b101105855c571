package dev.tidemark.example;

import dev.tidemark.client.TodoClient;
import dev.tidemark.client.TodoError;
import dev.tidemark.todo.v1.GetTodoRequest;
import dev.tidemark.todo.v1.GetTodoResponse;
import dev.tidemark.todo.v1.ListTodosRequest;
import dev.tidemark.todo.v1.ReadInfo;
import dev.tidemark.todo.v1.Todo;
import dev.tidemark.todo.v1.TodoServiceGrpc;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/** Each call once. What it creates it deletes at its end. */
final class Tour {
  private final TodoClient client;
  private final String parent;
  private final List<String> created = new ArrayList<>();

  Tour(TodoClient client, String parent) {
    this.client = client;
    this.parent = parent;
  }

  void run(List<String> addresses) {
    try {
      writeAndRead();
      listInPages();
      readManyTimes();
      errorsByReason();
      tooShortADeadline();
      onAnotherReplica(addresses);
    } finally {
      created.forEach(client::deleteTodo);
    }
  }

  private void writeAndRead() {
    createForTour("Buy milk", Todo.Priority.PRIORITY_NORMAL);
    createForTour("Read a book", Todo.Priority.PRIORITY_HIGH);
    Todo last = createForTour("Water the plants", Todo.Priority.PRIORITY_URGENT);
    // The session carries the token of the write: this read cannot miss it.
    GetTodoResponse reply = client.getTodo(last.getName());
    ReadInfo read = reply.getRead();
    Duration bound =
        Duration.ofSeconds(read.getStalenessBound().getSeconds(), read.getStalenessBound().getNanos());
    System.out.printf(
        "get: %s, from %s, misses nothing older than %s%n",
        reply.getTodo().getTitle(), read.getSource(), bound);
  }

  private Todo createForTour(String title, Todo.Priority priority) {
    return create(Todo.newBuilder().setTitle(title).setPriority(priority).addLabels("tour").build());
  }

  private Todo create(Todo todo) {
    Todo written = client.createTodo(parent, todo);
    created.add(written.getName());
    return written;
  }

  private void listInPages() {
    ListTodosRequest request =
        ListTodosRequest.newBuilder()
            .setParent(parent)
            .setPageSize(2)
            .setFilter("state = ACTIVE AND labels:\"tour\"")
            .setOrderBy("priority desc")
            .setConsistency(TodoClient.fullyConsistent())
            .build();
    client.listTodos(request).forEach(todo -> System.out.printf("list: %s %s%n", todo.getPriority(), todo.getTitle()));
  }

  /** Goes round all replicas that are healthy. */
  private void readManyTimes() {
    for (int n = 0; n < 20; n++) {
      client.listTodos(parent).forEach(todo -> {});
    }
    System.out.println("read: 20 times");
  }

  /** Does what a program would do: chooses by the reason, not by the text. */
  private void errorsByReason() {
    Todo before = create(Todo.newBuilder().setTitle("Call home").build());
    Todo todo =
        Todo.newBuilder()
            .setName(before.getName())
            .setTitle("Call home at six")
            .setEtag(before.getEtag())
            .build();
    client.updateTodo(todo);
    // The etag is that of before the update.
    refused("ETAG_MISMATCH", () -> client.updateTodo(todo));
    // The session has the refusal's token: this read is not older than the refusal.
    String title = client.getTodo(todo.getName()).getTodo().getTitle();
    System.out.println("refused: ERROR_REASON_ETAG_MISMATCH, it is now: " + title);

    TodoError none = refused("TODO_NOT_FOUND", () -> client.getTodo(parent + "/todos/none"));
    System.out.println("refused: ERROR_REASON_TODO_NOT_FOUND, says " + none.metadata().get("source"));

    ListTodosRequest request =
        ListTodosRequest.newBuilder().setParent(parent).setFilter("colour = RED").build();
    TodoError filter = refused("FILTER_INVALID", () -> client.listTodos(request).count());
    System.out.println("refused: ERROR_REASON_FILTER_INVALID at character " + filter.metadata().get("position"));
  }

  /** An error that has this reason; any other is thrown again. */
  private static TodoError refused(String reason, Runnable call) {
    try {
      call.run();
    } catch (TodoError error) {
      if (error.reason().equals(reason)) {
        return error;
      }
      throw error;
    }
    throw new IllegalStateException("this should have been refused: " + reason);
  }

  private void tooShortADeadline() {
    GetTodoRequest request = GetTodoRequest.newBuilder().setName(parent + "/todos/none").build();
    try {
      client.call(TodoServiceGrpc.getGetTodoMethod(), request, Duration.ofNanos(1000));
    } catch (TodoError error) {
      System.out.println("too short a deadline: " + error.code());
    }
  }

  /**
   * Writes at one replica and reads at the next, if there are two. The token makes the second one
   * wait until it has seen the write.
   */
  private void onAnotherReplica(List<String> addresses) {
    try (TodoClient first = TodoClient.connect(addresses.get(0))) {
      Todo written = first.createTodo(parent, Todo.newBuilder().setTitle("Written at one replica").build());
      String other = addresses.get(1 % addresses.size());
      try (TodoClient second = TodoClient.builder(other).token(first.token()).build()) {
        System.out.println("at another replica: " + second.getTodo(written.getName()).getTodo().getTitle());
      }
      first.deleteTodo(written.getName());
    }
  }
}
