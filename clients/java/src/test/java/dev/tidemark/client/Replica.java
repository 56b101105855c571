package dev.tidemark.client;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.function.UnaryOperator;

/** A replica at an address that it keeps. */
final class Replica implements AutoCloseable {
  /** Programs start slowly where two cores run everything. */
  private static final long PATIENCE_MS = 60_000;

  private final String uri;
  private final String address;
  private final List<String> args;
  private final UnaryOperator<TodoClient.Builder> probe;
  private Process process;

  Replica(String database) throws Exception {
    this(database, List.of(), UnaryOperator.identity());
  }

  /** {@code args} are more arguments; {@code probe} sets the options that let a client in. */
  Replica(String database, List<String> args, UnaryOperator<TodoClient.Builder> probe) throws Exception {
    this.args = args;
    this.probe = probe;
    try (ServerSocket socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      address = "127.0.0.1:" + socket.getLocalPort();
    }
    // Another run finds an empty database.
    uri = setting("MONGODB_URI").replace("/tour?", "/" + database + "_" + ProcessHandle.current().pid() + "?");
    start();
  }

  String address() {
    return address;
  }

  /** What clients/test says in the environment. */
  static String setting(String name) {
    String value = System.getenv(name);
    if (value == null) {
      throw new IllegalStateException(name + " is not set: run clients/test");
    }
    return value;
  }

  static void eventually(String what, Callable<Boolean> happened) throws Exception {
    long deadline = System.nanoTime() + PATIENCE_MS * 1_000_000;
    while (!happened.call()) {
      if (System.nanoTime() > deadline) {
        throw new AssertionError(what + ": not within " + PATIENCE_MS + " ms");
      }
      Thread.sleep(20);
    }
  }

  void start() throws Exception {
    List<String> command = new ArrayList<>();
    Collections.addAll(
        command, "setpriv", "--pdeathsig", "KILL", setting("SERVICE_BINARY"), "serve", "--mongodb-uri", uri,
        "--redis-url", setting("REDIS_URL"), "--listen", address, "--metrics-listen", "127.0.0.1:0");
    command.addAll(args);
    process = launch(command.toArray(String[]::new));
    try (TodoClient client = probe.apply(TodoClient.builder(address)).build()) {
      eventually("the replica", () -> answers(client));
    }
  }

  private static boolean answers(TodoClient client) {
    try {
      client.batchGetTodos(List.of("lists/a/todos/a"));
      return true;
    } catch (TodoError error) {
      return error.reason().equals("PERMISSION_DENIED");
    }
  }

  private static Process launch(String... command) throws IOException {
    return new ProcessBuilder(command)
        .redirectErrorStream(true)
        .redirectOutput(ProcessBuilder.Redirect.DISCARD)
        .start();
  }

  /** SIGKILL: connections break. */
  void kill() throws InterruptedException {
    process.destroyForcibly().waitFor();
  }

  /** SIGTERM: it ends the watches and then itself. */
  void drain() throws InterruptedException {
    process.destroy();
    process.waitFor();
  }

  /** SIGSTOP. It stops a moment after the signal. */
  void freeze() throws Exception {
    launch("kill", "-STOP", Long.toString(process.pid())).waitFor();
    Path stat = Path.of("/proc/" + process.pid() + "/stat");
    eventually("the stop", () -> Files.readString(stat).contains(") T "));
  }

  void importTodos(int count) throws Exception {
    List<String> lines = new ArrayList<>();
    for (int n = 0; n < count; n++) {
      lines.add("{\"name\": \"lists/many/todos/t" + n + "\", \"title\": \"todo " + n + "\"}");
    }
    Path file = Files.createTempFile("todos", ".json");
    Files.write(file, lines);
    succeeds(launch(setting("SERVICE_BINARY"), "import", "--mongodb-uri", uri, file.toString()));
    Files.delete(file);
  }

  /** Drops the todos behind the service's back, which resets its watches. */
  void drop() throws Exception {
    succeeds(launch("sh", "-c", setting("MONGOSH") + " \"$0\" --quiet --eval 'db.todos.drop()'", uri));
  }

  private static void succeeds(Process program) throws InterruptedException {
    if (program.waitFor() != 0) {
      throw new AssertionError(program.info().command() + " ended with " + program.exitValue());
    }
  }

  /** An API key, and its line for --keys-file. */
  static String[] newKey(String principal) throws Exception {
    Process program =
        new ProcessBuilder(setting("SERVICE_BINARY"), "key", "new", principal)
            .redirectError(ProcessBuilder.Redirect.DISCARD)
            .start();
    String output = new String(program.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    succeeds(program);
    return output.split("\n", 2);
  }

  @Override
  public void close() throws InterruptedException {
    kill();
  }
}
