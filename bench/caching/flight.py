"""The same value, wanted by 50 callers in each of 4 processes at the same moment: how often is it computed?"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, cast

import redis

from caching import rivals
from caching.callers import CALLERS, COUNTER, WORK_SECONDS
from caching.redis_process import redis_process
from report import Report

BENCH = Path(__file__).parents[1]
PROCESSES = 4
START_SECONDS = 4.0  # All have imported what they need by then.
ROUNDS = 2


class Round(NamedTuple):
    computed: int
    failed: int  # callers that were shown an error
    slowest: float  # of the others, in seconds
    commands: int


def measure(report: Report) -> None:
    report.note(f"{PROCESSES} processes of {CALLERS} callers each; the value takes {WORK_SECONDS} s to compute")
    for way in ("ours", "aiocache", *(("cashews",) if rivals.HAS_CASHEWS else ())):
        with redis_process() as url:
            rounds = [_round(way, url) for _ in range(ROUNDS)]
        is_ours = way == "ours"
        report.add(0, f"computations: {way}", max(one.computed for one in rounds), at_most=1 if is_ours else None)
        report.add(0, f"callers that fail: {way}", max(one.failed for one in rounds), at_most=0 if is_ours else None)
        beyond = min(one.slowest for one in rounds) - WORK_SECONDS
        report.add(0, f"slowest caller, beyond the work: {way}", beyond * 1000, "ms")
        report.add(0, f"commands to Redis: {way}", min(one.commands for one in rounds))


def _round(way: str, url: str) -> Round:
    command = [sys.executable, "-m", "caching.callers", way, url, str(time.time() + START_SECONDS)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=BENCH) for _ in range(PROCESSES)]
    found = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    with redis.Redis.from_url(url) as client:
        computed = int(cast("bytes | None", client.get(f"{COUNTER}:{way}")) or 0)
        commands = int(cast("dict[str, int]", client.info("stats"))["total_commands_processed"])
        client.flushdb()
        client.config_resetstat()
    return Round(computed, sum(one["failed"] for one in found), max(one["slowest"] for one in found), commands)
