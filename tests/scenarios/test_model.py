"""Random writes, crashes and reloads on a real server; after each write every reader sees what a dictionary says."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import servers
from ledger import Ledger


@pytest.mark.parametrize("steps", [120, pytest.param(6000, marks=[pytest.mark.soak, pytest.mark.timeout(3000)])])
def test_every_read_equals_the_dictionary(tmp_path: Path, steps: int) -> None:
    chance = random.Random(steps)
    events: tuple[Callable[[servers.Running, random.Random], None], ...] = (_kill_a_worker, _kill_the_indexer, _reload)
    # 1 in 40 writes; each of the three at least once.
    due = {step: events[n % len(events)] for n, step in enumerate(sorted(chance.sample(range(steps), steps // 40)))}
    with servers.server(
        tmp_path, RAGAGENT_SERVER__WORKERS="3", RAGAGENT_INGEST__MAX_DELTA_ROWS="12", RAGAGENT_INGEST__HNSW_ROWS="20"
    ) as running:
        ledger = Ledger(running, "model", chance)
        for step in range(steps):
            if step in due:
                due[step](running, chance)
            assert ledger.write()
            ledger.check()
        # An indexer that has just begun says what it shows with its next beat.
        (shown,) = servers.wait_until(lambda: _shown(running, ledger.store), 20)
        assert shown["generation"] > 1 + steps // 60


def _shown(running: servers.Running, store: str) -> list[dict[str, Any]]:
    return [entry for entry in running.control("status")["stores"] if entry["id"] == store]


def _kill_a_worker(running: servers.Running, chance: random.Random) -> None:
    os.kill(chance.choice(running.workers())["pid"], signal.SIGKILL)
    servers.wait_until(lambda: len(running.workers()) == 3, 60)


def _kill_the_indexer(running: servers.Running, chance: random.Random) -> None:
    os.kill(running.control("status")["indexer"]["pid"], signal.SIGKILL)


def _reload(running: servers.Running, chance: random.Random) -> None:
    assert running.control("reload")["ok"]
