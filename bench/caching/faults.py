"""What each fault of Redis costs a look-up, and how soon a healed Redis is used again.

A look-up is what a miss does: one GET, one SET. They come at a fixed rate, whatever became of those before, for as long
as the fault lasts; `off` is the same without a Redis. The servers are real and this program's own.

    python -m caching.faults          in bench/: half a minute
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import machine
from caching.redis_process import installed, with_debug
from caching.slow_proxy import slow_proxy
from ragagent.remote.connection import NoReply, Remote
from reloading import table

RATE = 60.0  # look-ups a second
FAULT_SECONDS = 2.5
HEAL_SECONDS = 10.0  # at most


@dataclass
class Measured:
    name: str
    seconds: list[float] = field(default_factory=list)  # of each look-up during the fault
    no_replies: int = 0
    healed: float | None = None  # from the end of the fault to the first look-up that Redis took part in again


class Server:
    """A redis-server that keeps its port over `kill` and `start`."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.process: subprocess.Popen[bytes] | None = None
        executable = installed()
        self._command = [executable, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)]
        self._command += ["--save", "", "--rdbcompression", "no", *with_debug(executable)]

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        while True:
            with contextlib.suppress(redis.RedisError), contextlib.closing(self.admin()) as admin:
                admin.ping()
                return
            time.sleep(0.01)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def admin(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=30, retry=Retry(NoBackoff(), 0))


def run(out: TextIO = sys.stdout) -> None:
    """Measure all faults and print a table of them."""
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        server = Server(Path(directory))
        server.start()
        try:
            measured = asyncio.run(_measure(server))
        finally:
            server.kill()
    base = machine.percentile(measured[0].seconds, 0.5)
    head = ("fault", "p50 added, ms", "p99 added, ms", "most, ms", "no reply", "used again after, ms")
    rows = []
    for one in measured:
        added = [machine.percentile(one.seconds, share) - base for share in (0.5, 0.99, 1)]
        healed = "" if one.healed is None else f"{one.healed * 1000:.0f}"
        rows.append((one.name, *(f"{value:.2f}" for value in added), f"{one.no_replies}/{len(one.seconds)}", healed))
    print(table.text(head, rows), file=out)


def _reload(admin: redis.Redis) -> None:
    admin.execute_command("DEBUG", "RELOAD")  # type: ignore[no-untyped-call]


async def _measure(server: Server) -> list[Measured]:
    measured = []
    async with Remote("") as off:
        measured.append(await _load(off, "off"))
    async with Remote(f"redis://127.0.0.1:{server.port}") as remote:
        measured.append(await _load(remote, "none"))
        for fault in FAULTS:
            async with fault(server):
                one = await _load(remote, fault.__name__.replace("_", " "))
            one.healed = await _heal(remote)
            measured.append(one)
    with slow_proxy(server.port) as proxy:
        async with Remote(f"redis://127.0.0.1:{proxy.port}") as remote:
            for name, delay, gap in (("80 ms away", 0.08, 0.0), ("80 ms, 1 byte/s", 0.08, 1.0)):
                proxy.delay_seconds, proxy.byte_seconds = delay, gap
                one = await _load(remote, name)
                proxy.delay_seconds = proxy.byte_seconds = 0.0
                one.healed = await _heal(remote)
                measured.append(one)
    return measured


async def _load(remote: Remote, name: str) -> Measured:
    loop = asyncio.get_running_loop()
    measured = Measured(name)
    begun, tasks = loop.time(), []
    for number in range(round(RATE * FAULT_SECONDS)):
        await asyncio.sleep(begun + number / RATE - loop.time())
        tasks.append(asyncio.create_task(_look_up(remote, number, measured)))
    await asyncio.gather(*tasks)
    return measured


async def _look_up(remote: Remote, number: int, measured: Measured) -> None:
    key = f"rag:1:bench:{number}"
    begun = time.perf_counter()
    found = await remote.get(key)
    stored = await remote.set(key, bytes(2000), ttl=60)
    measured.seconds.append(time.perf_counter() - begun)
    measured.no_replies += isinstance(found, NoReply) or isinstance(stored, NoReply)


async def _heal(remote: Remote) -> float:
    begun = time.perf_counter()
    while time.perf_counter() - begun < HEAL_SECONDS:
        after = Measured("")
        await _look_up(remote, 0, after)
        if not after.no_replies:
            break
        await asyncio.sleep(0.005)
    return time.perf_counter() - begun


# --- Faults ----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def hung(server: Server) -> AsyncIterator[None]:
    server.signal(signal.SIGSTOP)
    yield
    server.signal(signal.SIGCONT)


@contextlib.asynccontextmanager
async def gone(server: Server) -> AsyncIterator[None]:
    server.kill()
    yield
    server.start()


@contextlib.asynccontextmanager
async def wrong_password(server: Server) -> AsyncIterator[None]:
    with contextlib.closing(server.admin()) as admin:
        admin.config_set("requirepass", "changed")
        admin.client_kill_filter(_type="normal", skipme=True)
        yield
        admin.config_set("requirepass", "")


@contextlib.asynccontextmanager
async def full(server: Server) -> AsyncIterator[None]:
    with contextlib.closing(server.admin()) as admin:
        admin.config_set("maxmemory", 1)
        yield
        admin.config_set("maxmemory", 0)


@contextlib.asynccontextmanager
async def read_only(server: Server) -> AsyncIterator[None]:
    with contextlib.closing(server.admin()) as admin:
        admin.replicaof("127.0.0.1", "1")
        yield
        admin.replicaof("NO", "ONE")


@contextlib.asynccontextmanager
async def loading(server: Server) -> AsyncIterator[None]:
    keys = [f"filler:{number}" for number in range(30)]
    with contextlib.closing(server.admin()) as admin:
        for key in keys:
            admin.set(key, bytes(2**19))
        admin.config_set("key-load-delay", round(FAULT_SECONDS * 1e6 / len(keys)))
        load = asyncio.create_task(asyncio.to_thread(_reload, admin))
        yield
        await load
        admin.config_set("key-load-delay", 0)
        admin.unlink(*keys)


FAULTS: Sequence[Callable[[Server], AbstractAsyncContextManager[None]]] = (
    hung, gone, wrong_password, full, read_only, loading,
)  # fmt: skip


if __name__ == "__main__":
    run()
