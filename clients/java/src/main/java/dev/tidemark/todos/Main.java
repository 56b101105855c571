package dev.tidemark.todos;

import dev.tidemark.todo.v1.GetTodoRequest;
import dev.tidemark.todo.v1.Todo;
import dev.tidemark.todo.v1.TodoServiceGrpc;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.io.OutputStream;
import java.util.List;

/**
 * A client of the todo service to start from: each file shows one thing.
 *
 * <ul>
 *   <li>{@link Channels}: one channel over all replicas, by the published service config
 *   <li>{@link Tour}: each call once, with deadlines
 *   <li>{@link Writes}: writes that may be tried again
 *   <li>{@link Errors}: errors told by their reason
 *   <li>{@link Mirror}: a list kept in a local map, through lost connections
 * </ul>
 */
public final class Main {
  private static final String USAGE =
      """
      usage:
        todos get NAME ADDRESS...      reads one todo
        todos tour LIST ADDRESS...     shows each call once; two replicas or more
        todos mirror LIST ADDRESS...   follows a list until the end of its input""";

  private Main() {}

  /** Runs one command. */
  public static void main(String[] args) throws InterruptedException {
    if (args.length < 3) {
      System.err.println(USAGE);
      System.exit(2);
    }
    List<String> addresses = List.of(args).subList(2, args.length);
    try {
      switch (args[0]) {
        case "get" -> get(args[1], addresses);
        case "tour" -> Tour.run(args[1], addresses);
        case "mirror" -> mirror(args[1], addresses);
        default -> {
          System.err.println(USAGE);
          System.exit(2);
        }
      }
    } catch (StatusRuntimeException error) {
      System.err.println("todos: " + Errors.why(error).reason() + ": " + error.getMessage());
      System.exit(1);
    }
    // Threads of the channels may live on a little.
    System.exit(0);
  }

  private static void get(String name, List<String> addresses) {
    ManagedChannel channel = Channels.connect(addresses);
    GetTodoRequest request = GetTodoRequest.newBuilder().setName(name).build();
    Todo todo = Calls.soon(TodoServiceGrpc.newBlockingStub(channel)).getTodo(request).getTodo();
    System.out.println(todo.getTitle());
  }

  private static void mirror(String parent, List<String> addresses) throws InterruptedException {
    ManagedChannel channel = Channels.connect(addresses);
    Mirror mirror = new Mirror(TodoServiceGrpc.newBlockingStub(channel), parent, System.out::println);
    Thread input = new Thread(() -> untilTheEndOfInput(mirror));
    input.setDaemon(true);
    input.start();
    mirror.run();
    mirror.todos().forEach(todo -> System.out.println("has: " + todo.getName() + " " + todo.getTitle()));
  }

  private static void untilTheEndOfInput(Mirror mirror) {
    try {
      System.in.transferTo(OutputStream.nullOutputStream());
    } catch (IOException unreadable) {
      System.err.println("todos: the input cannot be read: " + unreadable.getMessage());
    }
    mirror.end();
  }
}
