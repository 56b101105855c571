package dev.tidemark.todos;

import dev.tidemark.todo.v1.CreateTodoRequest;
import dev.tidemark.todo.v1.CreateTodoResponse;
import dev.tidemark.todo.v1.Todo;
import dev.tidemark.todo.v1.TodoServiceGrpc.TodoServiceBlockingStub;
import dev.tidemark.todo.v1.UpdateTodoRequest;
import dev.tidemark.todo.v1.UpdateTodoResponse;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import java.util.function.Predicate;
import java.util.function.Supplier;

/** Writes that may be tried again. */
final class Writes {
  private static final long FIRST_PAUSE_MS = 50;
  private static final int MOST_TRIES = 6;

  private Writes() {}

  /**
   * Creates a todo once, however often it has to ask. The service config does not retry writes,
   * because it cannot know what is known here: the request has an id, and with the same id the
   * service never writes twice.
   */
  static CreateTodoResponse create(TodoServiceBlockingStub client, String parent, Todo todo) {
    CreateTodoRequest request =
        CreateTodoRequest.newBuilder()
            .setParent(parent)
            .setTodo(todo)
            .setRequestId(UUID.randomUUID().toString())
            .build();
    return untilDone(
        () -> Calls.soon(client).createTodo(request),
        error -> Errors.code(error) == Status.Code.UNAVAILABLE);
  }

  /**
   * Writes the fields that are set, if the todo still is as its etag says. It has no request id:
   * another try is safe only if the first had no effect.
   */
  static UpdateTodoResponse update(TodoServiceBlockingStub client, Todo todo) {
    UpdateTodoRequest request = UpdateTodoRequest.newBuilder().setTodo(todo).build();
    return untilDone(() -> Calls.soon(client).updateTodo(request), Errors::hadNoEffect);
  }

  private static <T> T untilDone(Supplier<T> call, Predicate<StatusRuntimeException> mayTryAgain) {
    long pause = FIRST_PAUSE_MS;
    for (int tries = 1; ; tries++) {
      try {
        return call.get();
      } catch (StatusRuntimeException error) {
        if (tries == MOST_TRIES || !mayTryAgain.test(error)) {
          throw error;
        }
      }
      sleep(pause);
      pause *= 2;
    }
  }

  private static void sleep(long milliseconds) {
    try {
      TimeUnit.MILLISECONDS.sleep(milliseconds);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}
