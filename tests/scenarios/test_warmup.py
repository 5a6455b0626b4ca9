"""A reload does not begin with empty caches: what the old workers knew, the new ones know, without a Redis."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from pathlib import Path

import servers

QUESTIONS = [f"What is the colour {number}?" for number in range(30)]
ROUNDS = 12


def _hits(running: servers.Running) -> float:
    """Ask each question once, on a connection of its own so that any worker may answer; return the share of hits."""
    hits = 0
    with running.http(headers={"connection": "close"}) as client:
        for question in QUESTIONS:
            body = {"model": "ragagent", "messages": [{"role": "user", "content": question}]}
            reply = client.post("/v1/chat/completions", json=body).raise_for_status()
            hits += reply.headers["x-ragagent-cache"] == "l1"
    return hits / len(QUESTIONS)


def _are_warm(running: servers.Running) -> bool:
    """Whether each of the new workers has taken in what each of the two old ones has left."""
    told = Counter(re.findall(r"warming\[(\d+)\] Began", running.log.read_text()))
    workers = running.workers()
    return all(worker["release"] == 2 and told[str(worker["pid"])] >= 2 for worker in workers) and len(workers) == 2


def test_new_workers_know_what_the_old_ones_knew(tmp_path: Path) -> None:
    with servers.server(tmp_path) as running:
        store = running.new_store("colours")
        running.upsert(store, **{f"c{n}": f"The colour {n} is shade number {n * 3}." for n in range(30)})
        before = max(_hits(running) for _ in range(ROUNDS))
        assert before > 0.8
        os.kill(running.pid, signal.SIGHUP)
        servers.wait_until(lambda: _are_warm(running), 30)
        assert _hits(running) >= 0.8 * before
        assert all(path.stat().st_mode & 0o77 == 0 for path in (running.data_dir / "warm").iterdir())
    assert not (running.data_dir / "warm").exists()
