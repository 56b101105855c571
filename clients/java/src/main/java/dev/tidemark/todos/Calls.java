package dev.tidemark.todos;

import dev.tidemark.todo.v1.Consistency;
import dev.tidemark.todo.v1.TodoServiceGrpc.TodoServiceBlockingStub;
import java.util.concurrent.TimeUnit;

/** What many calls have in common. */
final class Calls {
  /**
   * How long any call but a watch may take. The service hands what is left of it down to Redis and
   * MongoDB, and gives up when the caller does.
   */
  private static final long TIMEOUT_SECONDS = 5;

  private Calls() {}

  /** A deadline is a point in time: each call needs its own. */
  static TodoServiceBlockingStub soon(TodoServiceBlockingStub client) {
    return client.withDeadlineAfter(TIMEOUT_SECONDS, TimeUnit.SECONDS);
  }

  static Consistency atLeastAsFresh(String token) {
    return Consistency.newBuilder().setAtLeastAsFresh(token).build();
  }
}
