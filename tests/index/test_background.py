from __future__ import annotations

import os
import threading

import pytest

from ragagent.index import background
from ragagent.index.background import Background
from ragagent.index.exact import faiss


def policy() -> tuple[int, int, int]:
    return threading.get_ident(), os.sched_getscheduler(0), faiss.omp_get_max_threads()


def test_work_is_done_idle_on_half_of_the_cores_in_one_thread_of_its_own() -> None:
    before = policy()
    with Background("work") as work:
        first, second = work.do(policy), work.do(policy)
    assert first == second
    assert first[0] != before[0]
    assert first[1:] == (os.SCHED_IDLE, max(len(os.sched_getaffinity(0)) // 2, 1))
    assert policy() == before, "the caller stays what it was"
    assert not any(thread.name.startswith("work") for thread in threading.enumerate())


def test_what_work_raises_is_raised() -> None:
    with Background("work") as work, pytest.raises(ZeroDivisionError):
        work.do(divmod, 1, 0)


def test_work_that_gets_no_time_goes_on_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_PATIENCE_SECONDS", 0.0)
    with Background("work") as work:
        work.do(threading.Event().wait, 0.05)  # waits and computes nothing, as one that is never scheduled
        assert work.is_starved
        assert work.do(policy)[1:] == (os.SCHED_OTHER, 1)
