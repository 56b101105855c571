"""The library against real replicas."""

import tempfile
import threading
import time
import unittest
from pathlib import Path

import grpc

from service import Replica, eventually, new_key, setting
from tidemark import TLS, Client, MirrorTooLarge, Todo, TodoError, TodoList, fully_consistent
from tidemark.gen.todo.v1 import todo_pb2, todo_pb2_grpc


def is_deleted(client: Client, name: str) -> bool:
    """Whether a delete went through. The library does not repeat one that the killed
    replica may have had: nobody knows whether it took place."""
    try:
        client.delete_todo(name, allow_missing=True)
    except TodoError:
        return False
    return True


class ServiceTest(unittest.TestCase):
    def replica(self, database: str, *args: str, **probe) -> Replica:
        replica = Replica(database, *args, **probe)
        self.addCleanup(lambda: replica.kill())
        return replica

    def client(self, *addresses: str, **options) -> Client:
        # A machine under load may need longer than the default.
        client = Client(addresses, **{"timeout": 30.0, **options})
        self.addCleanup(client.close)
        return client

    def refused(self, reason: str, call, *args, **options) -> TodoError:
        with self.assertRaises(TodoError) as raised:
            call(*args, **options)
        self.assertEqual(raised.exception.reason, reason, str(raised.exception))
        return raised.exception

    def test_reads_see_writes_on_any_replica(self) -> None:
        one, other = self.replica("py_reads"), self.replica("py_reads")
        client = self.client(one.address, other.address)
        for n in range(30):
            todo = client.create_todo("lists/home", Todo(title=str(n)))
            # Round robin: these go to different replicas.
            self.assertEqual([client.get_todo(todo.name).todo.title for _ in range(2)], [str(n)] * 2)
            self.assertEqual(len(list(client.list_todos("lists/home"))), n + 1)
        # The same across two clients, when one passes its token on.
        first = self.client(one.address)
        todo = first.create_todo("lists/home", Todo(title="over"), todo_id="handed")
        second = self.client(other.address, token=first.token)
        self.assertEqual(second.get_todo(todo.name).todo.title, "over")
        session = client.new_session()
        self.assertEqual(session.token, "")
        session.get_todo(todo.name)
        self.assertNotEqual(session.token, "")

    def test_calls_outlive_their_connections(self) -> None:
        """The service closes each connection at its age, here every second, with GOAWAY."""
        replica = self.replica("py_age", "--max-connection-age", "1s")
        client = self.client(replica.address)
        todo = client.create_todo("lists/home", Todo(title="x"))
        end, failures, reads = time.monotonic() + 6, [], []

        def read() -> None:
            try:
                while time.monotonic() < end:
                    client.get_todo(todo.name)
                    reads.append(1)
            except TodoError as error:
                failures.append(error)

        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        self.assertEqual(failures, [])
        self.assertGreater(len(reads), 100)

    def test_the_largest_errors_arrive(self) -> None:
        """C-core refuses metadata above 8 to 16 KiB: the code is then RESOURCE_EXHAUSTED, without details."""
        replica = self.replica("py_large_errors")
        with grpc.insecure_channel(replica.address) as channel:
            stub = todo_pb2_grpc.TodoServiceStub(channel)

            def invalid(call, request) -> None:
                with self.assertRaises(grpc.RpcError) as raised:
                    call(request)
                error = raised.exception
                self.assertEqual(error.code(), grpc.StatusCode.INVALID_ARGUMENT, error.details())
                self.assertLessEqual(len(error.details().encode()), 2048)
                metadata = [*error.initial_metadata(), *error.trailing_metadata()]
                sent = sum(len(key) + len(value) * (4 / 3 if key.endswith("-bin") else 1) for key, value in metadata)
                self.assertLess(sent + 3 * len(error.details().encode()), 8192 + 2048)

            # What is percent-encoded, escaped, or long.
            for text in ("\U0001f600" * 60, "\x1b" * 200, "x" * 200, ""):
                for count in (1, 12, 100, 1000):
                    for _ in range(100 if count == 100 else 1):
                        names = todo_pb2.BatchGetTodosRequest(names=[text] * count)
                        invalid(stub.BatchGetTodos, names)
                watch = todo_pb2.WatchTodosRequest(parent="lists/-", names=[text] * 1000)
                invalid(lambda request: next(stub.WatchTodos(request)), watch)
                todo = Todo(title=text * 40, notes=text * 300, labels=[text * 2] * 40)
                request_id = text or "x"
                create = todo_pb2.CreateTodoRequest(
                    parent=text, todo_id=text or "?", todo=todo, request_id=request_id
                )
                invalid(stub.CreateTodo, create)
                mask = todo_pb2.UpdateTodoRequest(todo=Todo(name="lists/home/todos/x"))
                mask.update_mask.paths.extend([text or "?"] * 32)
                invalid(stub.UpdateTodo, mask)
                mask.update_mask.paths.extend([text or "?"] * 700)
                invalid(stub.UpdateTodo, mask)
                invalid(stub.DeleteTodo, todo_pb2.DeleteTodoRequest(name=text, etag=text * 9))
                listed = todo_pb2.ListTodosRequest(parent="lists/home", filter=(text or "?") * 9)
                invalid(stub.ListTodos, listed)
                token = todo_pb2.Consistency(at_least_as_fresh=text * 9)
                invalid(stub.GetTodo, todo_pb2.GetTodoRequest(name="lists/home/todos/x", consistency=token))

    def test_errors(self) -> None:
        replica = self.replica("py_errors")
        client = self.client(replica.address)
        missing = self.refused("TODO_NOT_FOUND", client.get_todo, "lists/home/todos/none")
        self.assertEqual(missing.code, grpc.StatusCode.NOT_FOUND)
        self.assertEqual(missing.metadata["name"], "lists/home/todos/none")
        self.assertEqual(missing.metadata["token"], client.token)
        invalid = self.refused("FIELD_INVALID", client.create_todo, "lists/home", Todo())
        self.assertEqual([one.field for one in invalid.fields], ["todo.title"])
        self.assertTrue(invalid.fields[0].description)
        milk = client.create_todo("lists/home", Todo(title="Buy milk"), todo_id="milk")
        client.update_todo(Todo(name=milk.name, title="Buy oat milk", etag=milk.etag), ["title"])
        self.refused("ETAG_MISMATCH", client.update_todo, Todo(name=milk.name, title="x", etag=milk.etag))
        client.delete_todo(milk.name)
        # A token of nobody is refused once; the session goes on without it.
        stranger = self.client(replica.address, token="AAAA")
        self.refused("TOKEN_INVALID", stranger.get_todo, milk.name)
        self.refused("TODO_NOT_FOUND", stranger.get_todo, milk.name)

    def test_deadlines(self) -> None:
        replica = self.replica("py_deadlines")
        client = self.client(replica.address)
        # Connects before the replica is frozen.
        milk = client.create_todo("lists/home", Todo(title="Buy milk"))
        replica.freeze()
        for timeout in 0.5, 0.2:
            started = time.monotonic()
            late = self.refused("", client.get_todo, milk.name, timeout=timeout)
            self.assertEqual(late.code, grpc.StatusCode.DEADLINE_EXCEEDED)
            self.assertLess(time.monotonic() - started, 3)

    def test_lists_of_2500_todos(self) -> None:
        one, other = self.replica("py_pages"), self.replica("py_pages")
        one.import_todos(2500)
        client = self.client(one.address, other.address)
        for size in 0, 333, 1000:
            found = client.list_todos("lists/many", page_size=size, consistency=fully_consistent())
            self.assertEqual(len({todo.name for todo in found}), 2500, f"pages of {size}")
        with self.assertRaises(MirrorTooLarge):
            client.mirror("lists/many", max_bytes=10_000).run()

    def test_lists(self) -> None:
        client = self.client(self.replica("py_lists").address)
        work = client.create_todo_list(TodoList(title="Work"), todo_list_id="work")
        self.assertEqual(work.name, "lists/work")
        client.update_todo_list(TodoList(name=work.name, title="Office", etag=work.etag), ["title"])
        self.assertEqual(client.get_todo_list(work.name).title, "Office")
        client.create_todo(work.name, Todo(title="Write"))
        self.assertEqual([one.name for one in client.list_todo_lists()], ["lists/work"])
        self.refused("LIST_NOT_EMPTY", client.delete_todo_list, work.name)
        client.delete_todo_list(work.name, force=True)

    def test_tls_and_credentials(self) -> None:
        folder = Path(setting("CERTIFICATES"))
        tls = TLS(folder / "ca.pem", folder / "client.pem", folder / "client.key")
        (ada, adas_line), (bob, bobs_line) = new_key("user:ada"), new_key("user:bob")
        with tempfile.NamedTemporaryFile("w") as keys:
            keys.write(adas_line + bobs_line)
            keys.flush()
            service = ["--tls-cert", str(folder / "service.pem"), "--tls-key", str(folder / "service.key")]
            service += ["--tls-client-ca", str(folder / "ca.pem"), "--auth", "keys", "--keys-file", keys.name]
            both = [self.replica("py_tls", *service, tls=tls, bearer=ada).address for _ in range(2)]
            client = self.client(*both, tls=tls, bearer=lambda: ada)
            mine = client.create_todo_list(TodoList(title="Ada's"), todo_list_id="ada").name
            for _ in range(4):
                client.create_todo(mine, Todo(title="Compute"))
            with client.mirror(mine) as mirror:
                self.assertTrue(mirror.wait_ready(60))
                self.assertEqual(len(mirror.todos), 4)
            self.refused("PERMISSION_DENIED", self.client(*both, tls=tls, bearer=bob).mirror(mine).run)
            self.refused("CALLER_UNKNOWN", self.client(*both, tls=tls).get_todo, f"{mine}/todos/a")
            one_way = self.client(*both, tls=TLS(folder / "ca.pem"), timeout=2.0)
            self.refused("", one_way.get_todo, f"{mine}/todos/a")

    def test_a_mirror_ends_when_repetition_is_no_use(self) -> None:
        client = self.client(self.replica("py_mirror_ends").address)
        self.refused("FIELD_INVALID", client.mirror("no list").run)

    def test_a_mirror_through_breaks_drains_and_resets(self) -> None:
        one, other = self.replica("py_mirror"), self.replica("py_mirror")
        client = self.client(one.address, other.address)
        for name in "a", "b":
            self.create(client, name)
        client.create_todo("lists/home", Todo(title="0"), todo_id="counter")
        lost: list[str | None] = []
        numbers: list[int] = []

        def on_change(name: str, todo: Todo | None) -> None:
            if name.endswith("/counter") and todo:
                numbers.append(int(todo.title))

        followed = self.client(one.address, other.address).mirror(
            "lists/home", on_change=on_change, on_stale=lambda error: lost.append(error and error.reason)
        )
        with followed as mirror:
            self.assertTrue(mirror.wait_ready(60))
            stop = threading.Event()
            writer = threading.Thread(target=count_up, args=(client.new_session(), stop))
            writer.start()
            self.addCleanup(stop.set)
            self.appears(client, mirror, "c")
            # Wherever the watch is, it is lost both ways: by a break, and by a drain.
            one.kill()
            self.appears(client, mirror, "d")
            one.start()
            other.drain()
            self.appears(client, mirror, "e")
            other.start()
            one.kill()
            eventually("a delete", lambda: is_deleted(client, "lists/home/todos/a"))
            self.appears(client, mirror, "f")
            eventually("the deletion", lambda: mirror.get("lists/home/todos/a") is None)
            one.start()
            # A killed replica may leave a transaction open that the writer waits for: the
            # others end it within seconds.
            eventually("ten updates", lambda: numbers and numbers[-1] > 10)
            stop.set()
            writer.join()
            self.equals_the_list(mirror, client)
            self.assertEqual(numbers, sorted(numbers), "the mirror went back")

            one.drop()
            eventually("the reset", lambda: None in lost)
            self.appears(client, mirror, "g")
            self.equals_the_list(mirror, client)
            self.assertEqual([todo.title for todo in mirror.todos], ["todo g"])
        self.assertIn("DRAINING", lost)
        self.assertIn("", lost)

    def create(self, client: Client, name: str) -> None:
        client.create_todo("lists/home", Todo(title=f"todo {name}"), todo_id=name)

    def appears(self, client: Client, mirror, name: str) -> None:
        self.create(client, name)
        eventually(name, lambda: mirror.get(f"lists/home/todos/{name}") is not None)

    def equals_the_list(self, mirror, client: Client) -> None:
        def same() -> bool:
            listed = client.list_todos("lists/home", consistency=fully_consistent())
            return sorted(todo.name + todo.etag for todo in listed) == [t.name + t.etag for t in mirror.todos]

        eventually("the same list", same)


def count_up(client: Client, stop: threading.Event) -> None:
    """Writes one number after the other into a todo."""
    number = 0
    while not stop.wait(0.005):
        number += 1
        try:
            client.update_todo(Todo(name="lists/home/todos/counter", title=str(number)), ["title"])
        except TodoError:
            pass  # The next number will do.


if __name__ == "__main__":
    unittest.main()
