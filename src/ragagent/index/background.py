"""Long work that must not hurt searches: done with the CPU time that they leave, and on half of the cores.

SCHED_IDLE gives a thread what nobody else wants. Three traps: nothing leads back from it without privileges, so it is
for a thread that ends with the work. A thread that holds Python's lock and is not scheduled stops its process, so only
calls into faiss, which gives the lock up, belong here. And where nothing is ever left over, work would never end: after
a call that hardly got anything the rest is done as by any other thread.

Searches of 200,000 rows on two busy cores, p99: 1.6 ms alone, 4.6 beside a build here, 12.6 beside one on all cores.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import ParamSpec, TypeVar

from ragagent.index import exact

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_PATIENCE_SECONDS = 5.0  # a call that takes longer ...
_LEAST_SHARE = 0.1  # ... and got less of a core than this was starved


class Background:
    """One thread, which ends with the block. OpenMP's own threads are its children, and so idle as well."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pool = ThreadPoolExecutor(1, name, _step_back)
        self.is_starved = False

    def do(
        self, act: Callable[_Arguments, _Result], *arguments: _Arguments.args, **named: _Arguments.kwargs
    ) -> _Result:
        """Return what `act` returns, or raise what it raises."""

        def timed() -> tuple[_Result, float]:
            started = time.thread_time()
            return act(*arguments, **named), time.thread_time() - started

        started = time.monotonic()
        result, used = self._pool.submit(timed).result()
        if not self.is_starved and used < _LEAST_SHARE * (time.monotonic() - started - _PATIENCE_SECONDS):
            self._give_up_being_idle()
        return result

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def _give_up_being_idle(self) -> None:
        self.is_starved = True
        self._pool.shutdown()
        self._pool = ThreadPoolExecutor(1, self._name, exact.use_one_thread)


def _step_back() -> None:
    exact.use_threads(max(len(os.sched_getaffinity(0)) // 2, 1))
    with suppress(PermissionError):  # A container may forbid it; then the work is merely less polite.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
