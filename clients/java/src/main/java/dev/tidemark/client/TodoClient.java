package dev.tidemark.client;

import com.google.protobuf.Descriptors.Descriptor;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.FieldMask;
import com.google.protobuf.Message;
import dev.tidemark.todo.v1.BatchGetTodosRequest;
import dev.tidemark.todo.v1.BatchGetTodosResponse;
import dev.tidemark.todo.v1.Consistency;
import dev.tidemark.todo.v1.CreateTodoListRequest;
import dev.tidemark.todo.v1.CreateTodoRequest;
import dev.tidemark.todo.v1.DeleteTodoListRequest;
import dev.tidemark.todo.v1.DeleteTodoRequest;
import dev.tidemark.todo.v1.GetTodoListRequest;
import dev.tidemark.todo.v1.GetTodoRequest;
import dev.tidemark.todo.v1.GetTodoResponse;
import dev.tidemark.todo.v1.ListTodoListsRequest;
import dev.tidemark.todo.v1.ListTodosRequest;
import dev.tidemark.todo.v1.ListTodosResponse;
import dev.tidemark.todo.v1.Todo;
import dev.tidemark.todo.v1.TodoList;
import dev.tidemark.todo.v1.TodoServiceGrpc;
import dev.tidemark.todo.v1.UpdateTodoListRequest;
import dev.tidemark.todo.v1.UpdateTodoRequest;
import dev.tidemark.todo.v1.WatchTodosRequest;
import dev.tidemark.todo.v1.WatchTodosResponse;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.ClientInterceptors;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.ClientCalls;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * Calls the service. A client is one session: each read is at least as fresh as everything that the
 * session has written and read before, on whatever replica answers. Writes are repeated until the
 * deadline as long as that cannot write twice. Calls throw {@link TodoError}. A client can be used
 * by many threads.
 */
public final class TodoClient implements AutoCloseable {
  /**
   * Bounds a call that states no timeout. The service stops working on a call when its deadline
   * passes.
   */
  public static final Duration DEFAULT_TIMEOUT = Duration.ofSeconds(5);

  /** The most todos that the service puts into a page. */
  static final int MAX_PAGE_SIZE = 1000;

  /** How long a write waits before it is repeated: doubled each time, with jitter. */
  static final long FIRST_PAUSE_MS = 50;

  static final long LONGEST_PAUSE_MS = 2000;

  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private final ManagedChannel connection;
  private final Channel channel;
  private final Duration timeout;
  private final Session session;

  private TodoClient(ManagedChannel connection, Channel channel, Duration timeout, String token) {
    this.connection = connection;
    this.channel = channel;
    this.timeout = timeout;
    this.session = new Session(token);
  }

  /**
   * Opens a client over all replicas at these addresses: one gRPC target, which in a cluster is a
   * name with all replicas ({@code dns:///tidemark-headless:50051}), or several {@code HOST:PORT}
   * separated by commas. It applies the published service config: round robin, health checks,
   * retries of reads. It does not wait for a connection.
   */
  public static TodoClient connect(String addresses) {
    return builder(addresses).build();
  }

  /** As {@link #connect}, with options. */
  public static Builder builder(String addresses) {
    return new Builder(Channels.split(addresses));
  }

  /** Options of a client. */
  public static final class Builder {
    private final List<String> addresses;
    private Duration timeout = DEFAULT_TIMEOUT;
    private String token = "";
    private ChannelCredentials credentials = InsecureChannelCredentials.create();
    private Supplier<String> bearer;

    private Builder(List<String> addresses) {
      this.addresses = addresses;
    }

    /** Replaces {@link #DEFAULT_TIMEOUT}. */
    public Builder timeout(Duration longest) {
      timeout = longest;
      return this;
    }

    /** Continues the session of another client or process, from {@link TodoClient#token}. */
    public Builder token(String newest) {
      token = newest;
      return this;
    }

    /**
     * Sends an API key or a JWT with each call, as {@code authorization: Bearer}. Use it with TLS:
     * without, the network can read it.
     */
    public Builder bearer(String credential) {
      return bearer(() -> credential);
    }

    /** The same for credentials that expire: it is called for each call. */
    public Builder bearer(Supplier<String> source) {
      bearer = source;
      return this;
    }

    /** Encrypts connections, for example with {@link TodoClient#tlsFiles}. */
    public Builder tls(ChannelCredentials tls) {
      credentials = tls;
      return this;
    }

    /** Opens the client. */
    public TodoClient build() {
      ManagedChannel connection = Channels.connect(addresses, credentials);
      Channel channel = bearer == null ? connection : withBearer(connection, bearer);
      return new TodoClient(connection, channel, timeout, token);
    }
  }

  private static Channel withBearer(Channel connection, Supplier<String> bearer) {
    return ClientInterceptors.intercept(
        connection,
        new io.grpc.ClientInterceptor() {
          @Override
          public <Q, R> io.grpc.ClientCall<Q, R> interceptCall(
              MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
            return new io.grpc.ForwardingClientCall.SimpleForwardingClientCall<>(
                next.newCall(method, options)) {
              @Override
              public void start(Listener<R> listener, Metadata headers) {
                headers.put(AUTHORIZATION, "Bearer " + bearer.get());
                super.start(listener, headers);
              }
            };
          }
        });
  }

  /**
   * TLS from PEM files: the authorities that sign the service's certificate (null: those of the
   * JVM), and for mutual TLS the client's certificate and key (null: none).
   */
  public static ChannelCredentials tlsFiles(Path ca, Path cert, Path key) throws IOException {
    TlsChannelCredentials.Builder tls = TlsChannelCredentials.newBuilder();
    if (ca != null) {
      tls.trustManager(ca.toFile());
    }
    if (cert != null || key != null) {
      tls.keyManager(cert.toFile(), key.toFile());
    }
    return tls.build();
  }

  /** Releases the connections, also those of the client's other sessions. */
  @Override
  public void close() {
    connection.shutdownNow();
  }

  /**
   * A client with a session of its own over the same connections: for example one for each user of
   * a program. {@code token} continues another session; it may be empty.
   */
  public TodoClient newSession(String token) {
    return new TodoClient(connection, channel, timeout, token);
  }

  /** The newest token of the session, to continue it elsewhere; empty before the first call. */
  public String token() {
    return session.token();
  }

  /** Takes a token of another session into this one. */
  public void observe(String token) {
    session.observe(token);
  }

  /** Makes a read reflect every write acknowledged before it began. */
  public static Consistency fullyConsistent() {
    return Consistency.newBuilder().setFullyConsistent(true).build();
  }

  /** Makes a read miss no write acknowledged longer ago than this. */
  public static Consistency maxStaleness(Duration bound) {
    com.google.protobuf.Duration.Builder duration =
        com.google.protobuf.Duration.newBuilder().setSeconds(bound.getSeconds()).setNanos(bound.getNano());
    return Consistency.newBuilder().setMaxStaleness(duration).build();
  }

  /** Makes a read fail rather than ask the database. */
  public static Consistency cachedOnly() {
    return Consistency.newBuilder().setCachedOnly(true).build();
  }

  static Consistency atLeastAsFresh(String token) {
    return Consistency.newBuilder().setAtLeastAsFresh(token).build();
  }

  /** Reads one todo. */
  public GetTodoResponse getTodo(String name) {
    return call(TodoServiceGrpc.getGetTodoMethod(), GetTodoRequest.newBuilder().setName(name).build());
  }

  /** Reads one todo with another consistency level than the session's. */
  public GetTodoResponse getTodo(String name, Consistency level) {
    GetTodoRequest request = GetTodoRequest.newBuilder().setName(name).setConsistency(level).build();
    return call(TodoServiceGrpc.getGetTodoMethod(), request);
  }

  /** Reads up to 1000 todos. */
  public BatchGetTodosResponse batchGetTodos(Iterable<String> names) {
    BatchGetTodosRequest request = BatchGetTodosRequest.newBuilder().addAllNames(names).build();
    return call(TodoServiceGrpc.getBatchGetTodosMethod(), request);
  }

  /** All todos of a list ({@code lists/{list}}), read page by page as they are asked for. */
  public Stream<Todo> listTodos(String parent) {
    return listTodos(ListTodosRequest.newBuilder().setParent(parent).setPageSize(MAX_PAGE_SIZE).build());
  }

  /** All todos that the request selects, from its page token on. */
  public Stream<Todo> listTodos(ListTodosRequest request) {
    return stream(pages(request)).flatMap(page -> page.getTodosList().stream());
  }

  /**
   * The pages themselves, which also state how fresh they are and which todos cannot be read. Each
   * page has a deadline of its own.
   */
  public Iterable<ListTodosResponse> pages(ListTodosRequest first) {
    return pages(TodoServiceGrpc.getListTodosMethod(), first);
  }

  /** The pages of any method that has them. */
  public <Q extends Message, R extends Message> Iterable<R> pages(MethodDescriptor<Q, R> method, Q first) {
    return () ->
        new Iterator<>() {
          private Q request = first;

          @Override
          public boolean hasNext() {
            return request != null;
          }

          @Override
          public R next() {
            if (request == null) {
              throw new NoSuchElementException();
            }
            R page = call(method, request);
            String next = (String) page.getField(page.getDescriptorForType().findFieldByName("next_page_token"));
            request = next.isEmpty() ? null : with(request, "page_token", next);
            return page;
          }
        };
  }

  static <T> Stream<T> stream(Iterable<T> of) {
    return StreamSupport.stream(of.spliterator(), false);
  }

  /** Creates a todo in a list ({@code lists/{list}}) under a name that the service makes. */
  public Todo createTodo(String parent, Todo todo) {
    return createTodo(CreateTodoRequest.newBuilder().setParent(parent).setTodo(todo).build());
  }

  /** Creates a todo. */
  public Todo createTodo(CreateTodoRequest request) {
    return call(TodoServiceGrpc.getCreateTodoMethod(), request).getTodo();
  }

  /**
   * Writes the named fields of the todo, or those that are set. If the todo has an etag, it writes
   * only if the etag matches.
   */
  public Todo updateTodo(Todo todo, String... fields) {
    UpdateTodoRequest.Builder request = UpdateTodoRequest.newBuilder().setTodo(todo);
    if (fields.length > 0) {
      request.setUpdateMask(FieldMask.newBuilder().addAllPaths(List.of(fields)));
    }
    return updateTodo(request.build());
  }

  /** Updates a todo. */
  public Todo updateTodo(UpdateTodoRequest request) {
    return call(TodoServiceGrpc.getUpdateTodoMethod(), request).getTodo();
  }

  /** Deletes a todo. */
  public void deleteTodo(String name) {
    deleteTodo(DeleteTodoRequest.newBuilder().setName(name).build());
  }

  /** Deletes a todo. */
  public void deleteTodo(DeleteTodoRequest request) {
    call(TodoServiceGrpc.getDeleteTodoMethod(), request);
  }

  /** Reads one list: its title and its members. */
  public TodoList getTodoList(String name) {
    GetTodoListRequest request = GetTodoListRequest.newBuilder().setName(name).build();
    return call(TodoServiceGrpc.getGetTodoListMethod(), request).getTodoList();
  }

  /** All lists that the caller may read, page by page as they are asked for. */
  public Stream<TodoList> listTodoLists() {
    ListTodoListsRequest request = ListTodoListsRequest.newBuilder().setPageSize(MAX_PAGE_SIZE).build();
    return stream(pages(TodoServiceGrpc.getListTodoListsMethod(), request))
        .flatMap(page -> page.getTodoListsList().stream());
  }

  /**
   * Creates a list ({@code lists/{id}}). An empty id is replaced by one that the service makes. With
   * authentication the caller becomes an owner.
   */
  public TodoList createTodoList(String id, TodoList list) {
    CreateTodoListRequest request =
        CreateTodoListRequest.newBuilder().setTodoListId(id).setTodoList(list).build();
    return call(TodoServiceGrpc.getCreateTodoListMethod(), request).getTodoList();
  }

  /**
   * Writes the named fields of the list ({@code title}, {@code members}), or those that are set. If
   * the list has an etag, it writes only if the etag matches.
   */
  public TodoList updateTodoList(TodoList list, String... fields) {
    UpdateTodoListRequest.Builder request = UpdateTodoListRequest.newBuilder().setTodoList(list);
    if (fields.length > 0) {
      request.setUpdateMask(FieldMask.newBuilder().addAllPaths(List.of(fields)));
    }
    return call(TodoServiceGrpc.getUpdateTodoListMethod(), request.build()).getTodoList();
  }

  /** Deletes a list. With its todos it does so only if {@code force} is set. */
  public void deleteTodoList(String name, boolean force) {
    DeleteTodoListRequest request =
        DeleteTodoListRequest.newBuilder().setName(name).setForce(force).build();
    call(TodoServiceGrpc.getDeleteTodoListMethod(), request);
  }

  /** A mirror of a list ({@code lists/{list}}). Its {@code start} or {@code run} starts it. */
  public Mirror mirror(String parent, Mirror.Listener listener) {
    return new Mirror(this, parent, listener, Mirror.DEFAULT_MAX_BYTES);
  }

  /** The same with another bound than {@link Mirror#DEFAULT_MAX_BYTES}. */
  public Mirror mirror(String parent, Mirror.Listener listener, long maxBytes) {
    return new Mirror(this, parent, listener, maxBytes);
  }

  /** The messages of WatchTodos as gRPC has them. It throws StatusRuntimeException. */
  Iterator<WatchTodosResponse> watch(WatchTodosRequest request) {
    // The one call without a deadline: it is meant to last.
    return ClientCalls.blockingServerStreamingCall(
        channel, TodoServiceGrpc.getWatchTodosMethod(), CallOptions.DEFAULT, request);
  }

  /** Any unary method of the service, with the same deadline, session, repetitions and errors. */
  public <Q extends Message, R extends Message> R call(MethodDescriptor<Q, R> method, Q request) {
    return call(method, request, timeout);
  }

  /** The same with a timeout of its own. */
  public <Q extends Message, R extends Message> R call(
      MethodDescriptor<Q, R> method, Q request, Duration longest) {
    long deadline = System.nanoTime() + longest.toNanos();
    String token = session.token();
    boolean presents = presentsToken(request, token);
    Q prepared = presents ? with(request, "consistency", atLeastAsFresh(token)) : request;
    if (lacks(request, "request_id")) {
      prepared = with(prepared, "request_id", UUID.randomUUID().toString());
    }
    for (long pause = FIRST_PAUSE_MS; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
      TodoError failed;
      try {
        CallOptions options =
            CallOptions.DEFAULT.withDeadlineAfter(deadline - System.nanoTime(), TimeUnit.NANOSECONDS);
        R reply = ClientCalls.blockingUnaryCall(channel, method, options, prepared);
        session.observe(tokenOf(reply));
        return reply;
      } catch (StatusRuntimeException error) {
        failed = new TodoError(error);
      }
      session.observe(failed.metadata().getOrDefault("token", ""));
      if (failed.voidsToken() && presents) {
        session.forget(token);
      }
      long wait = Math.max(jitter(pause), failed.retryAfter().toMillis());
      boolean late = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(wait) > deadline;
      if (late || !mayRepeat(prepared.getDescriptorForType(), failed) || !sleep(wait)) {
        throw failed;
      }
    }
  }

  static long jitter(long pause) {
    return pause / 2 + ThreadLocalRandom.current().nextLong(pause / 2 + 1);
  }

  /** False if the thread was interrupted; it stays so. */
  private static boolean sleep(long milliseconds) {
    try {
      TimeUnit.MILLISECONDS.sleep(milliseconds);
      return true;
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  /** Whether the request states no level, and the session has a token for it. */
  private static boolean presentsToken(Message request, String token) {
    FieldDescriptor field = request.getDescriptorForType().findFieldByName("consistency");
    return field != null && !token.isEmpty() && !request.hasField(field);
  }

  private static boolean lacks(Message request, String text) {
    FieldDescriptor field = request.getDescriptorForType().findFieldByName(text);
    return field != null && ((String) request.getField(field)).isEmpty();
  }

  @SuppressWarnings("unchecked")
  private static <Q extends Message> Q with(Q request, String field, Object value) {
    FieldDescriptor descriptor = request.getDescriptorForType().findFieldByName(field);
    return (Q) request.toBuilder().setField(descriptor, value).build();
  }

  /** The token of an answer: of a write in {@code token}, of a read in {@code read.token}. */
  private static String tokenOf(Message reply) {
    Descriptor type = reply.getDescriptorForType();
    FieldDescriptor read = type.findFieldByName("read");
    if (read != null) {
      return tokenOf((Message) reply.getField(read));
    }
    FieldDescriptor token = type.findFieldByName("token");
    return token == null ? "" : (String) reply.getField(token);
  }

  /**
   * Whether a call may be sent again. Reads are repeated by the service config on UNAVAILABLE;
   * some transports have other codes for a broken connection, without a reason. With a request id
   * the service writes once, however often it is asked.
   */
  private static boolean mayRepeat(Descriptor request, TodoError failed) {
    boolean broken =
        failed.reason().isEmpty()
            && (failed.code() == Status.Code.UNKNOWN || failed.code() == Status.Code.INTERNAL);
    if (request.findFieldByName("consistency") != null) {
      return broken;
    }
    if (request.findFieldByName("request_id") != null) {
      return broken
          || failed.code() == Status.Code.UNAVAILABLE
          || failed.reason().equals("WRITE_OUTCOME_UNKNOWN");
    }
    return failed.hadNoEffect();
  }
}
