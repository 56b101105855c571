package dev.tidemark.example;

import dev.tidemark.client.Mirror;
import dev.tidemark.client.TodoClient;
import dev.tidemark.client.TodoError;
import dev.tidemark.todo.v1.Todo;
import java.io.IOException;
import java.io.OutputStream;
import java.util.List;
import java.util.Optional;

/** An example client of the todo service: each command shows a part of the library. */
public final class Main {
  private static final String USAGE =
      """
      usage:
        todos get NAME ADDRESS...      reads one todo
        todos tour LIST ADDRESS...     shows each call once
        todos mirror LIST ADDRESS...   follows a list until the end of its input""";

  private Main() {}

  /** Runs one command. */
  public static void main(String[] args) {
    if (args.length < 3) {
      System.err.println(USAGE);
      System.exit(2);
    }
    List<String> addresses = List.of(args).subList(2, args.length);
    try (TodoClient client = TodoClient.connect(String.join(",", addresses))) {
      switch (args[0]) {
        case "get" -> System.out.println(client.getTodo(args[1]).getTodo().getTitle());
        case "tour" -> new Tour(client, args[1]).run(addresses);
        case "mirror" -> mirror(client, args[1]);
        default -> {
          System.err.println(USAGE);
          System.exit(2);
        }
      }
    } catch (TodoError error) {
      System.err.println("todos: " + describe(error) + ": " + error.getMessage());
      System.exit(1);
    }
    // Threads of the channel may live on a little.
    System.exit(0);
  }

  /** Chooses by the code and the reason. The message is for people. */
  static String describe(TodoError error) {
    return error.code() + " ERROR_REASON_" + (error.reason().isEmpty() ? "UNSPECIFIED" : error.reason());
  }

  private static void mirror(TodoClient client, String parent) {
    Mirror mirror = client.mirror(parent, new Printer());
    Thread input = new Thread(() -> untilTheEndOfInput(mirror));
    input.setDaemon(true);
    input.start();
    mirror.run();
    mirror.todos().forEach(todo -> System.out.println("has: " + todo.getName() + " " + todo.getTitle()));
  }

  private static final class Printer implements Mirror.Listener {
    @Override
    public void onChange(String name, Optional<Todo> todo) {
      System.out.println(todo.map(one -> "put: " + name + " " + one.getTitle()).orElse("gone: " + name));
    }

    @Override
    public void onReady() {
      System.out.println("following");
    }

    @Override
    public void onStale(Optional<TodoError> error) {
      System.out.println(error.map(one -> "lost: " + describe(one)).orElse("reset"));
    }
  }

  private static void untilTheEndOfInput(Mirror mirror) {
    try {
      System.in.transferTo(OutputStream.nullOutputStream());
    } catch (IOException unreadable) {
      System.err.println("todos: the input cannot be read: " + unreadable.getMessage());
    }
    mirror.close();
  }
}
