"""The servers under comparison, each with two workers, one application, and otherwise its defaults."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import peers

HERE = Path(__file__).parent
HOST = "127.0.0.1"
WORKERS = 2
START_SECONDS = 30.0
STOP_SECONDS = 15.0


@dataclass(frozen=True)
class Kind:
    """`command` is what follows the interpreter; PORT stands for the port."""

    name: str
    command: Sequence[str]
    python: Path = Path(sys.executable)
    http2: bool = False  # by prior knowledge, without TLS


OURS = Kind(
    "ragagent",
    "-m ragagent.supervisor --worker-module reloading.worker --indexer-module reloading.worker".split(),
    http2=True,
)
PEERS = [
    Kind("uvicorn", "-m uvicorn app:app --port PORT --workers 2 --no-access-log".split(), peers.PYTHON),
    Kind(
        "gunicorn",
        # 10 s until a silent worker is replaced, as ours; its default is 30.
        "-m gunicorn app:app -k asgi -w 2 -b 127.0.0.1:PORT --timeout 10 --no-control-socket "
        "--http-protocols h1,h2 --http2-cleartext both".split(),
        peers.PYTHON,
        http2=True,
    ),
    Kind(
        "granian",
        "-m granian app:app --interface asgi --port PORT --workers 2 --respawn-failed-workers --no-access-log".split(),
        peers.PYTHON,
        http2=True,
    ),
    Kind("hypercorn", "-m hypercorn app:app -w 2 -b 127.0.0.1:PORT".split(), peers.PYTHON, http2=True),
]


class Server:
    """One running server: its master process, and all that descends from it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    def send(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    @property
    def exit_code(self) -> int | None:
        """None: it runs."""
        return self.process.poll()

    def family(self) -> list[int]:
        """Its living descendants."""
        return list(_descendants(self.process.pid))


@contextlib.contextmanager
def serve(kind: Kind, directory: Path) -> Iterator[Server]:
    """Run a server of the release that is deployed in `directory`; nothing of it is left after the block."""
    port = _free_port()
    command = [str(kind.python), *(word.replace("PORT", str(port)) for word in kind.command)]
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=directory, env=_environment(directory, port), stdout=log, stderr=log)
    server = Server(process, port)
    family: set[int] = set()
    try:
        _wait_until_it_answers(server, directory / "log")
        yield server
        family |= set(server.family())
    finally:
        family |= set(server.family())
        server.send(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        for pid in [*family, *([process.pid] if process.poll() is None else [])]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def distance(port: int, rtt_ms: float) -> Iterator[int]:
    """Yield a port that leads to `port`, `rtt_ms` away."""
    command = [sys.executable, str(HERE / "proxy.py"), str(port), str(rtt_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as proxy:
        assert proxy.stdout is not None
        try:
            yield int(proxy.stdout.readline())
        finally:
            proxy.kill()


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_free(port: int) -> bool:
    """Whether another server could listen there."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True


def _environment(directory: Path, port: int) -> dict[str, str]:
    """Ours finds itself, and everyone the deployed application. Bytecode would hide a release from a quick reload."""
    path = [directory, HERE.parent, HERE.parents[1] / "src"]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "RAGAGENT_DATA__DIR": str(directory / "data"),
        "RAGAGENT_SERVER__BIND": f"{HOST}:{port}",
        "RAGAGENT_SERVER__WORKERS": str(WORKERS),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(server: Server, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.exit_code is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{server.port}/", timeout=2):
            return
        time.sleep(0.05)
    raise SystemExit(f"The server did not start:\n{log.read_text()}")


def _descendants(pid: int) -> Iterator[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    with contextlib.suppress(OSError):
        for child in map(int, children.read_text().split()):
            yield child
            yield from _descendants(child)
