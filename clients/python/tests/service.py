"""Replicas of the service for the tests."""

import contextlib
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tidemark import Client, TodoError

# Programs start slowly where two cores run everything.
PATIENCE = 60.0


def setting(name: str) -> str:
    """What clients/test says in the environment."""
    if name not in os.environ:
        raise RuntimeError(f"{name} is not set: run clients/test")
    return os.environ[name]


def database_uri(database: str) -> str:
    # Another run finds an empty database.
    return setting("MONGODB_URI").replace("/tour?", f"/{database}_{os.getpid()}?")


def eventually(what: str, happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {PATIENCE} s")
        time.sleep(0.02)


def free_port() -> int:
    """Below the ports of outgoing connections, one of which could take it while the replica is down."""
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Replica:
    """A replica at an address that it keeps."""

    def __init__(self, database: str, *args: str, **probe) -> None:
        """`args` are more arguments; `probe` are the options that let a client in."""
        self.args, self.probe = args, probe
        self.address = f"127.0.0.1:{free_port()}"
        self.uri = database_uri(database)
        self.start()

    def start(self) -> None:
        command = ["setpriv", "--pdeathsig", "KILL", setting("SERVICE_BINARY"), "serve"]
        command += ["--mongodb-uri", self.uri, "--redis-url", setting("REDIS_URL")]
        self.process = subprocess.Popen(
            [*command, "--listen", self.address, "--metrics-listen", "127.0.0.1:0", *self.args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with Client(self.address, **self.probe) as client:
            eventually("the replica", lambda: self._answers(client))

    @staticmethod
    def _answers(client: Client) -> bool:
        try:
            client.batch_get_todos(["lists/a/todos/a"])
        except TodoError as error:
            return error.reason == "PERMISSION_DENIED"
        return True

    def kill(self) -> None:
        """SIGKILL: connections break."""
        self.process.kill()
        self.process.wait()

    def drain(self) -> None:
        """SIGTERM: it ends the watches and then itself."""
        self.process.terminate()
        self.process.wait()

    def freeze(self) -> None:
        """SIGSTOP. It stops a moment after the signal."""
        self.process.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.process.pid}/stat")
        eventually("the stop", lambda: ") T " in stat.read_text())

    def import_todos(self, count: int) -> None:
        lines = "".join(f'{{"name": "lists/many/todos/t{n:05}", "title": "todo {n}"}}\n' for n in range(count))
        command = [setting("SERVICE_BINARY"), "import", "--mongodb-uri", self.uri, "-"]
        subprocess.run(command, input=lines, text=True, check=True, capture_output=True)

    def drop(self) -> None:
        """Drops the todos behind the service's back, which resets its watches."""
        command = [*shlex.split(setting("MONGOSH")), self.uri, "--quiet", "--eval", "db.todos.drop()"]
        subprocess.run(command, check=True, capture_output=True)


def new_key(principal: str) -> tuple[str, str]:
    """An API key, and its line for --keys-file."""
    command = [setting("SERVICE_BINARY"), "key", "new", principal]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    key, line = output.split("\n", 1)
    return key, line
