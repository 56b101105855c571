package dev.tidemark.client;

import com.google.protobuf.Duration;
import dev.tidemark.todo.v1.GetTodoResponse;
import dev.tidemark.todo.v1.ListTodosRequest;
import dev.tidemark.todo.v1.ListTodosResponse;
import dev.tidemark.todo.v1.Todo;
import dev.tidemark.todo.v1.TodoChange;
import dev.tidemark.todo.v1.WatchTodosRequest;
import dev.tidemark.todo.v1.WatchTodosResponse;
import io.grpc.Context;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;

/**
 * Keeps a list in memory. It lists once, then watches from where the list ended. After a lost
 * connection the watch goes on from the last token, on whatever replica answers; after a reset the
 * mirror lists anew, not older than what it showed. It never shows a todo in a state older than one
 * that it showed before, unless the database itself was replaced.
 */
public final class Mirror implements AutoCloseable {
  /** Bounds a mirror by the encoded size of its todos. */
  public static final long DEFAULT_MAX_BYTES = 64L << 20;

  /**
   * The service sends a message at least this often. After three times as long without one, the
   * replica counts as lost.
   */
  private static final long PROGRESS_SECONDS = 5;

  private static final long LONGEST_SILENCE_SECONDS = 3 * PROGRESS_SECONDS;

  private static final ScheduledExecutorService TIMERS =
      Executors.newSingleThreadScheduledExecutor(
          task -> {
            Thread thread = new Thread(task, "mirror-timers");
            thread.setDaemon(true);
            return thread;
          });

  /** Callbacks. They run one at a time, in the thread of {@code run}, after the mirror has changed. */
  public interface Listener {
    /** A todo is new or changed, or (empty) gone. */
    default void onChange(String name, Optional<Todo> todo) {}

    /** The mirror follows the list: at first, and after {@code onStale}. */
    default void onReady() {}

    /**
     * The mirror stopped following the list: a lost connection, a draining replica, a reset (then
     * there is no error). It recovers by itself.
     */
    default void onStale(Optional<TodoError> error) {}
  }

  /** The list has more bytes than the mirror may hold. */
  public static final class TooLarge extends RuntimeException {
    private static final long serialVersionUID = 1;

    private TooLarge(String parent, long maxBytes) {
      super(parent + " has more than " + maxBytes + " bytes; raise maxBytes");
    }
  }

  private final TodoClient client;
  private final String parent;
  private final Listener listener;
  private final long maxBytes;
  private final CountDownLatch ended = new CountDownLatch(1);
  private final Context.CancellableContext untilTheEnd = Context.ROOT.withCancellation();

  private final Object lock = new Object();
  private Map<String, Todo> todos = new HashMap<>();
  private long bytes;
  private boolean ready;
  private RuntimeException error;

  /** Of the thread of run. Empty: all must be listed anew. */
  private String token = "";

  /** The newest state shown: no listing may be older. */
  private Session shown = new Session("");

  Mirror(TodoClient client, String parent, Listener listener, long maxBytes) {
    this.client = client;
    this.parent = parent;
    this.listener = listener;
    this.maxBytes = maxBytes;
  }

  /** The list as it is now, sorted by name. */
  public List<Todo> todos() {
    synchronized (lock) {
      return List.copyOf(new TreeMap<>(todos).values());
    }
  }

  /** One todo as it is now. */
  public Optional<Todo> get(String name) {
    synchronized (lock) {
      return Optional.ofNullable(todos.get(name));
    }
  }

  /** Whether the mirror follows the list at this moment. */
  public boolean isReady() {
    synchronized (lock) {
      return ready;
    }
  }

  /**
   * Waits until the mirror follows the list. False after the timeout.
   *
   * @throws RuntimeException what ended {@code run}
   */
  public boolean awaitReady(java.time.Duration timeout) throws InterruptedException {
    long deadline = System.nanoTime() + timeout.toNanos();
    synchronized (lock) {
      while (!ready && error == null) {
        long left = TimeUnit.NANOSECONDS.toMillis(deadline - System.nanoTime());
        if (left <= 0) {
          return false;
        }
        lock.wait(left);
      }
      if (error != null) {
        throw error;
      }
      return true;
    }
  }

  /** Runs the mirror in a daemon thread. */
  public Mirror start() {
    Thread thread = new Thread(this::runInThread, "mirror");
    thread.setDaemon(true);
    thread.start();
    return this;
  }

  private void runInThread() {
    try {
      run();
    } catch (RuntimeException failed) {
      synchronized (lock) {
        error = failed;
        lock.notifyAll();
      }
    }
  }

  /** Ends {@code run}, from any thread. */
  @Override
  public void close() {
    ended.countDown();
    untilTheEnd.cancel(null);
  }

  /**
   * Follows the list until {@code close}, or throws what no repetition can resolve: a {@link
   * TodoError} for an invalid name or a missing permission, {@link TooLarge}.
   */
  public void run() {
    try {
      followUntilTheEnd();
    } finally {
      setReady(false);
    }
  }

  private void followUntilTheEnd() {
    long pause = TodoClient.FIRST_PAUSE_MS;
    while (ended.getCount() > 0) {
      String before = token;
      Optional<TodoError> failed = attempt();
      if (ended.getCount() == 0) {
        return;
      }
      boolean moved = !token.equals(before);
      failed.ifPresent(one -> check(one, moved));
      becomesStale(failed);
      if (moved) {
        pause = TodoClient.FIRST_PAUSE_MS;
      }
      if (failed.isPresent() && !waits(Math.max(TodoClient.jitter(pause), failed.get().retryAfter().toMillis()))) {
        return;
      }
      pause = Math.min(2 * pause, TodoClient.LONGEST_PAUSE_MS);
    }
  }

  private Optional<TodoError> attempt() {
    try {
      untilTheEnd.run(this::follow);
      return Optional.empty();
    } catch (TodoError failed) {
      return Optional.of(failed);
    } catch (StatusRuntimeException failed) {
      return Optional.of(new TodoError(failed));
    }
  }

  /** False if the mirror was ended, or its thread interrupted. */
  private boolean waits(long milliseconds) {
    try {
      return !ended.await(milliseconds, TimeUnit.MILLISECONDS);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  /**
   * Throws an error that would come again. A credential that expired during a watch is not one: the
   * next call has a new one.
   */
  private void check(TodoError failed, boolean moved) {
    if (failed.voidsToken()) {
      // Of another database, or of one restored to the past.
      token = "";
      shown = new Session("");
      return;
    }
    boolean lasts =
        switch (failed.code()) {
          case INVALID_ARGUMENT, UNIMPLEMENTED, PERMISSION_DENIED -> true;
          case UNAUTHENTICATED -> !moved;
          default -> false;
        };
    if (lasts) {
      throw failed;
    }
  }

  /** Lists if it must, then watches until the stream ends. Returns after a reset. */
  private void follow() {
    if (token.isEmpty()) {
      list();
    }
    WatchTodosRequest request =
        WatchTodosRequest.newBuilder()
            .setParent(parent)
            .setAfter(token)
            .setIncludeTodo(true)
            .setProgressInterval(Duration.newBuilder().setSeconds(PROGRESS_SECONDS))
            .build();
    Context.CancellableContext watching = Context.current().withCancellation();
    try {
      watching.run(() -> take(client.watch(request), watching));
    } finally {
      watching.cancel(null);
    }
  }

  private void take(Iterator<WatchTodosResponse> stream, Context.CancellableContext watching) {
    ScheduledFuture<?> silence = listen(watching);
    try {
      while (stream.hasNext()) {
        silence.cancel(false);
        silence = listen(watching);
        if (take(stream.next())) {
          return;
        }
      }
    } finally {
      silence.cancel(false);
    }
    // The service ends no stream without an error.
    throw Status.UNAVAILABLE.withDescription("the watch ended").asRuntimeException();
  }

  private static ScheduledFuture<?> listen(Context.CancellableContext watching) {
    Throwable silent = Status.UNAVAILABLE.withDescription("no message for " + LONGEST_SILENCE_SECONDS + " s").asException();
    return TIMERS.schedule(() -> watching.cancel(silent), LONGEST_SILENCE_SECONDS, TimeUnit.SECONDS);
  }

  /**
   * Applies one message, and then advances the token. True if the list must be read again: what the
   * stream still holds may be older than that listing.
   */
  private boolean take(WatchTodosResponse message) {
    shown.observe(message.getToken());
    if (message.hasReset()) {
      token = "";
      return true;
    }
    if (message.hasChange()) {
      change(message.getChange(), message.getToken());
    }
    token = message.getToken();
    client.observe(token);
    if (!setReady(true)) {
      listener.onReady();
    }
    return false;
  }

  /** Returns whether the mirror was ready before. */
  private boolean setReady(boolean now) {
    synchronized (lock) {
      boolean was = ready;
      ready = now;
      lock.notifyAll();
      return was;
    }
  }

  /**
   * Applies one change. Without its todo it is of one that is gone, or that the service could not
   * read in time: only a deletion says which.
   */
  private void change(TodoChange change, String at) {
    Todo todo = change.hasTodo() ? change.getTodo() : null;
    if (todo == null && change.getKind() != TodoChange.Kind.KIND_DELETED) {
      try {
        GetTodoResponse reply = client.getTodo(change.getName(), TodoClient.atLeastAsFresh(at));
        todo = reply.getTodo();
        shown.observe(reply.getRead().getToken());
      } catch (TodoError failed) {
        if (!failed.reason().equals("TODO_NOT_FOUND") && !failed.reason().equals("TODO_UNREADABLE")) {
          throw failed;
        }
        shown.observe(failed.metadata().getOrDefault("token", ""));
      }
    }
    put(change.getName(), todo);
  }

  /** Reads all pages. The token of the last is where the watch begins. */
  private void list() {
    Map<String, Todo> found = new HashMap<>();
    long size = 0;
    String last = "";
    ListTodosRequest.Builder request =
        ListTodosRequest.newBuilder().setParent(parent).setPageSize(TodoClient.MAX_PAGE_SIZE);
    // Not older than what the mirror showed, and what the client wrote and read.
    Session newest = new Session(client.token());
    newest.observe(shown.token());
    if (!newest.token().isEmpty()) {
      request.setConsistency(TodoClient.atLeastAsFresh(newest.token()));
    }
    for (ListTodosResponse page : client.pages(request.build())) {
      for (Todo todo : page.getTodosList()) {
        found.put(todo.getName(), todo);
        size += todo.getSerializedSize();
      }
      checkSize(size);
      last = page.getRead().getToken();
      shown.observe(last);
    }
    replace(found, size);
    token = last;
  }

  /** Shows a listing, and reports how it differs from what was shown. */
  private void replace(Map<String, Todo> found, long size) {
    Map<String, Todo> before;
    Map<String, Todo> listed = Map.copyOf(found);
    synchronized (lock) {
      before = todos;
      todos = found;
      bytes = size;
    }
    for (String name : before.keySet()) {
      if (!listed.containsKey(name)) {
        listener.onChange(name, Optional.empty());
      }
    }
    listed.forEach(
        (name, todo) -> {
          if (!todo.equals(before.get(name))) {
            listener.onChange(name, Optional.of(todo));
          }
        });
  }

  /** Shows one todo, or (null) that it is gone. */
  private void put(String name, Todo todo) {
    Todo was;
    long size;
    synchronized (lock) {
      was = todo == null ? todos.remove(name) : todos.put(name, todo);
      bytes += (todo == null ? 0 : todo.getSerializedSize()) - (was == null ? 0 : was.getSerializedSize());
      size = bytes;
    }
    if (todo == null ? was != null : !todo.equals(was)) {
      listener.onChange(name, Optional.ofNullable(todo));
    }
    checkSize(size);
  }

  private void checkSize(long size) {
    if (size > maxBytes) {
      throw new TooLarge(parent, maxBytes);
    }
  }

  /** Marks the mirror. Before it followed, only an error is reported. */
  private void becomesStale(Optional<TodoError> failed) {
    if (setReady(false) || failed.isPresent()) {
      listener.onStale(failed);
    }
  }
}
