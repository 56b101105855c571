package dev.tidemark.todos;

import dev.tidemark.todo.v1.ListTodosRequest;
import dev.tidemark.todo.v1.ListTodosResponse;
import dev.tidemark.todo.v1.Todo;
import dev.tidemark.todo.v1.TodoChange;
import dev.tidemark.todo.v1.TodoServiceGrpc.TodoServiceBlockingStub;
import dev.tidemark.todo.v1.WatchTodosRequest;
import dev.tidemark.todo.v1.WatchTodosResponse;
import io.grpc.Context;
import io.grpc.StatusRuntimeException;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/**
 * Keeps a list in a local map: lists once, then watches from where the list ended. A lost
 * connection costs nothing but time, since the watch goes on from the last token, on whatever
 * replica answers.
 */
final class Mirror {
  private static final long FIRST_PAUSE_MS = 50;
  private static final long LONGEST_PAUSE_MS = 2000;

  private final TodoServiceBlockingStub client;
  private final String parent;
  private final Consumer<String> say;
  private final CountDownLatch ended = new CountDownLatch(1);
  private final Context.CancellableContext untilTheEnd = Context.current().withCancellation();

  private volatile ConcurrentSkipListMap<String, Todo> todos = new ConcurrentSkipListMap<>();

  /** Empty: all must be listed anew. */
  private String token = "";

  /** What the next listing must not be older than. */
  private String floor = "";

  Mirror(TodoServiceBlockingStub client, String parent, Consumer<String> say) {
    this.client = client;
    this.parent = parent;
    this.say = say;
  }

  /** The map as it is now, sorted by name. */
  List<Todo> todos() {
    return List.copyOf(todos.values());
  }

  /** Ends {@link #run}, from another thread. */
  void end() {
    ended.countDown();
    untilTheEnd.cancel(null);
  }

  /** Follows the list until its end, or throws what makes no sense to try again. */
  void run() throws InterruptedException {
    long pause = FIRST_PAUSE_MS;
    do {
      String before = token;
      try {
        untilTheEnd.run(this::follow);
      } catch (StatusRuntimeException error) {
        if (ended.getCount() == 0) {
          return;
        }
        lost(error);
      }
      pause = token.equals(before) ? Math.min(2 * pause, LONGEST_PAUSE_MS) : FIRST_PAUSE_MS;
    } while (!ended.await(pause, TimeUnit.MILLISECONDS));
  }

  private void lost(StatusRuntimeException error) {
    Errors.Why why = Errors.why(error);
    switch (why.reason()) {
      // Of another database, or of one restored to the past.
      case ERROR_REASON_TOKEN_FOREIGN, ERROR_REASON_TOKEN_INVALID -> token = floor = "";
      default -> {
        switch (Errors.code(error)) {
          case INVALID_ARGUMENT, UNIMPLEMENTED, UNAUTHENTICATED, PERMISSION_DENIED -> throw error;
          default -> { }
        }
      }
    }
    say.accept("lost: " + Errors.code(error) + " " + why.reason());
  }

  /** Lists if it must, then watches until the stream ends. */
  private void follow() {
    if (token.isEmpty()) {
      list();
    }
    // The one call without a deadline: it is meant to last.
    Iterator<WatchTodosResponse> stream =
        client.watchTodos(
            WatchTodosRequest.newBuilder()
                .setParent(parent)
                .setAfter(token)
                .setIncludeTodo(true)
                .build());
    boolean following = false;
    while (stream.hasNext()) {
      WatchTodosResponse message = stream.next();
      if (!following) {
        say.accept("following");
        following = true;
      }
      token = message.getToken();
      switch (message.getEventCase()) {
        case CHANGE -> apply(message.getChange());
        case RESET -> {
          say.accept("reset: " + message.getReset().getReason());
          token = "";
          floor = message.getToken();
          list();
        }
        default -> { }
      }
    }
  }

  /** Reads all pages. The token of the last is where the watch begins. */
  private void list() {
    Map<String, Todo> found = new TreeMap<>();
    ListTodosRequest.Builder request =
        ListTodosRequest.newBuilder().setParent(parent).setPageSize(1000);
    if (!floor.isEmpty()) {
      request.setConsistency(Calls.atLeastAsFresh(floor));
    }
    ListTodosResponse page;
    do {
      page = Calls.soon(client).listTodos(request.build());
      page.getTodosList().forEach(todo -> found.put(todo.getName(), todo));
      request.setPageToken(page.getNextPageToken());
    } while (!page.getNextPageToken().isEmpty());
    todos = new ConcurrentSkipListMap<>(found);
    token = page.getRead().getToken();
  }

  /** A change without its todo is of one that is gone by now, whatever its kind. */
  private void apply(TodoChange change) {
    if (change.hasTodo()) {
      todos.put(change.getName(), change.getTodo());
      say.accept("put: " + change.getName() + " " + change.getTodo().getTitle());
    } else {
      todos.remove(change.getName());
      say.accept("gone: " + change.getName());
    }
  }
}
