"""One fault at a time, each on a fresh server under light load, and a verdict in words."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import h11

from reloading.http1 import HOST, Http1
from reloading.load import ask, load
from reloading.releases import deploy, deployment
from reloading.servers import Kind, Server, is_alive, is_free, serve
from reloading.tally import Tally, Watch

SLOW_START_SECONDS = 8.0
BROKEN_SECONDS = 12.0  # Some try for long before they give up.
WATCHED_SECONDS = 25.0


@dataclass(frozen=True)
class Scene:
    server: Server
    directory: Path
    tally: Tally


@dataclass(frozen=True)
class Fault:
    name: str
    happen: Callable[[Scene], Awaitable[str]]


async def try_on(kind: Kind, fault: Fault, clients: int) -> str:
    """Return what became of a server of this kind."""
    with deployment() as directory, serve(kind, directory) as server:
        async with load(server.port, clients, http2=kind.http2) as tally:
            await asyncio.sleep(1)
            return await fault.happen(Scene(server, directory, tally))


async def _syntax_error(scene: Scene) -> str:
    deploy(scene.directory, 2, broken=True)
    scene.server.send(signal.SIGHUP)
    await asyncio.sleep(BROKEN_SECONDS)
    if scene.server.exit_code is not None:
        return f"server dead, exit code {scene.server.exit_code}"
    answers = [await ask(scene.server.port) for _ in range(5)]
    serves = all(answer is not None and answer["version"] == 1 for answer in answers)
    return f"{'old one serves' if serves else 'nobody serves'}, {scene.tally.failures()} failed"


async def _slow_start(scene: Scene) -> str:
    deploy(scene.directory, 2, startup_seconds=SLOW_START_SECONDS)
    scene.server.send(signal.SIGHUP)
    workers = scene.tally.workers
    seconds = await _until(lambda: 2 in workers.values() and not _alive(scene.tally, 1))
    served = "" if seconds is not None else ", new one never served"
    if scene.server.exit_code is not None:
        served = ", server dead"
    return f"{scene.tally.failures()} failed, worst stall {scene.tally.worst_stall * 1000:.0f} ms{served}"


async def _kill_worker(scene: Scene) -> str:
    before = set(scene.server.family())
    os.kill(next(iter(scene.tally.workers)), signal.SIGKILL)
    begun = time.monotonic()
    while (elapsed := time.monotonic() - begun) < WATCHED_SECONDS and scene.server.exit_code is None:
        # Asked over new connections: those of the load may all stay with the worker that is left.
        answer = await ask(scene.server.port)
        if answer is not None and answer["pid"] not in before:
            return f"replacement answers after {elapsed:.1f} s"
        await asyncio.sleep(0.02)
    gone = scene.server.exit_code is not None
    return f"server exits, code {scene.server.exit_code}" if gone else f"not replaced in {WATCHED_SECONDS:g} s"


async def _kill_master(scene: Scene) -> str:
    family = scene.server.family()
    scene.server.process.kill()
    await asyncio.sleep(4)
    orphans = [pid for pid in family if is_alive(pid)]
    verdict = f"orphans: {len(orphans)}, port {'free' if is_free(scene.server.port) else 'taken'}"
    for pid in orphans:
        os.kill(pid, signal.SIGKILL)
    return verdict


async def _blocked_loop(scene: Scene) -> str:
    connection = await Http1.open(scene.server.port)
    pid = await _pid_behind(connection)
    connection.send(h11.Request(method="GET", target="/block", headers=[("Host", HOST)]))
    seconds = await _until(lambda: not is_alive(pid))
    connection.close()
    return f"not replaced in {WATCHED_SECONDS:g} s" if seconds is None else f"replaced after {seconds:.1f} s"


async def _pid_behind(connection: Http1) -> int:
    answer: dict[str, int] = json.loads(await connection.get("/", Watch()))
    return answer["pid"]


def _alive(tally: Tally, version: int) -> bool:
    return any(is_alive(pid) for pid, served in tally.workers.items() if served == version)


async def _until(condition: Callable[[], bool]) -> float | None:
    """Return after how many seconds it came true; None: not while it was watched."""
    begun = time.monotonic()
    while (elapsed := time.monotonic() - begun) < WATCHED_SECONDS:
        if condition():
            return elapsed
        await asyncio.sleep(0.05)
    return None


ALL = [
    Fault("reload with a syntax error", _syntax_error),
    Fault(f"reload, {SLOW_START_SECONDS:g} s to start", _slow_start),
    Fault("kill -9 of a worker", _kill_worker),
    Fault("kill -9 of the master, 4 s later", _kill_master),
    Fault("blocked event loop", _blocked_loop),
]
