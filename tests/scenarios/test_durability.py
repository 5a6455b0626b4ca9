"""Nothing acknowledged is lost, whoever is killed and whenever."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

import doomed
import servers
from ledger import Ledger


def test_kill_9_of_any_process_loses_nothing_acknowledged(tmp_path: Path) -> None:
    with servers.server(tmp_path) as running:
        store = running.new_store("killed")
        acknowledged: list[str] = []
        stop = threading.Event()

        def write() -> None:
            n = 0
            while not stop.is_set():
                word = f"survivor{n:05d}"
                with contextlib.suppress(httpx.HTTPError):
                    if running.upsert(store, **{word: f"This is {word}."}).status_code in (200, 202):
                        acknowledged.append(word)
                n += 1

        writer = threading.Thread(target=write)
        writer.start()
        for role in ("indexer", "worker", "indexer", "worker", "indexer"):
            time.sleep(0.7)
            status = running.control("status")
            victim = status["indexer"] if role == "indexer" else status["workers"][0]
            if victim.get("pid"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim["pid"], signal.SIGKILL)
        time.sleep(0.5)
        stop.set()
        writer.join()
        servers.wait_until(lambda: servers.is_ready(running), 30)
        _assert_each_is_there_once(running, store, acknowledged)


@pytest.mark.parametrize("rounds", [8, pytest.param(100, marks=[pytest.mark.soak, pytest.mark.timeout(3000)])])
def test_kill_9_at_any_step_loses_nothing_acknowledged(tmp_path: Path, rounds: int) -> None:
    """Someone dies at a chosen step of a write, a build or a prune; then the store is what the dictionary says."""
    chance = random.Random(rounds)
    orders = _orders(chance, rounds)
    ledger: Ledger | None = None
    while orders:
        env = {**doomed.environment(tmp_path), "RAGAGENT_INGEST__MAX_DELTA_ROWS": "6"}
        with servers.server(tmp_path, arguments=doomed.MODULES, **env) as running:
            ledger = ledger or Ledger(running, "killed", chance)
            ledger.running = running
            while running.process.poll() is None:
                ledger.settle()
                ledger.check()
                if not orders:
                    break
                _carry_out(tmp_path, ledger, *orders.pop())


def _orders(chance: random.Random, rounds: int) -> list[tuple[str, str]]:
    """Return so many points and victims, in turns of a part and the whole tree: whoever dies often, waits longer."""
    parts = [(point, "itself") for point in doomed.POINTS]
    parts += [("parsing", "parser"), ("appended", "supervisor"), ("committed", "zygote"), ("accepted", "indexer")]
    trees = [(point, "tree") for point in doomed.POINTS]
    chance.shuffle(parts)
    chance.shuffle(trees)
    return [(parts, trees)[n % 2][n // 2 % len((parts, trees)[n % 2])] for n in range(rounds)]


def _carry_out(directory: Path, ledger: Ledger, point: str, victim: str) -> None:
    """Write until the victim has died at that point, and wait for what takes its place, if anything does."""
    running = ledger.running
    doomed.strike(directory, point, victim=_pid(ledger, victim))
    deadline = time.monotonic() + 30
    while not doomed.is_struck(directory) and ledger.write():
        assert time.monotonic() < deadline, f"nothing came to {point!r}"
        with contextlib.suppress(httpx.TransportError):
            running.found(ledger.store, "anything")  # Or readers would hold the old generation for ever.
    if victim in ("tree", "supervisor"):
        running.process.wait(30)
    else:
        servers.wait_until(lambda: servers.is_ready(running), 30)


def _pid(ledger: Ledger, victim: str) -> int:
    if victim in ("itself", "tree"):
        return {"itself": doomed.ITSELF, "tree": doomed.TREE}[victim]
    while not (found := ledger.running.members().get(victim)):
        ledger.write()  # The parser is started by the first file.
    return found[0]


def _assert_each_is_there_once(running: servers.Running, store: str, words: list[str]) -> None:
    servers.wait_until(lambda: running.counts(store)["in_progress"] == 0, 30)
    for word in words:
        assert running.found(store, word)[:1] == [f"This is {word}."], word
        assert len([text for text in running.found(store, word) if word in text]) == 1, word
