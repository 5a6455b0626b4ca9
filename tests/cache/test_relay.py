"""Several processes, one computation: whoever leads, fails, dies, or is stopped and comes back."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ragagent.cache import envelope
from ragagent.cache.envelope import Entry
from redis_server import RedisServer
from servers import wait_until
from sharers import LEASE_SECONDS, Sharer, key, sharers

pytestmark = [pytest.mark.redis, pytest.mark.anyio]


@pytest.fixture(scope="module")
def four(shared_redis: RedisServer) -> Iterator[list[Sharer]]:
    with sharers(shared_redis, 4) as processes:
        yield processes


def stored(redis: RedisServer, text: str) -> Any:
    with contextlib.closing(redis.admin()) as admin:
        blob = admin.get(key(text).rendered)
    assert isinstance(blob, bytes)
    entry = envelope.decode(key(text).rendered, blob, time.time())
    assert isinstance(entry, Entry)
    return entry.value


def leader(processes: list[Sharer]) -> Sharer:
    return wait_until(lambda: next((each for each in processes if each.is_computing), None), 10) or processes[0]


def test_two_hundred_callers_in_four_processes_compute_once(redis: RedisServer, four: list[Sharer]) -> None:
    for each in four:
        each.ask("once", seconds=0.3, callers=50)
    found = [value for each in four for value in each.answered()]
    assert len(found) == 200
    assert sum(each.computations() for each in four) == 1
    assert all(value == found[0] for value in found)


def test_work_that_outlasts_its_lease_is_still_done_once(redis: RedisServer, four: list[Sharer]) -> None:
    for each in four:
        each.ask("long", seconds=3 * LEASE_SECONDS)
    found = [each.answered() for each in four]
    assert sum(each.computations() for each in four) == 1
    assert all(value == found[0] for value in found)


def test_a_failure_reaches_everyone_at_once_and_nobody_tries_again(redis: RedisServer, four: list[Sharer]) -> None:
    for each in four:
        each.ask("away", seconds=0.3, callers=10, fails=True)
    assert [each.answered() for each in four] == [["Upstream"] * 10] * 4
    assert sum(each.computations() for each in four) == 1
    four[0].ask("away", seconds=0.0)
    assert isinstance(four[0].answered()[0], dict), "a failure is not kept"
    four[0].computations()


def test_all_hear_the_same_pieces(redis: RedisServer, four: list[Sharer]) -> None:
    four[0].ask("talk", pieces=12, seconds=0.1)
    four[0].expect("computing")
    for each in four[1:]:
        each.ask("talk", pieces=12, callers=3)
    ((heard, value),) = four[0].answered()
    assert len(heard) == 12
    for each in four[1:]:
        for pieces, theirs in each.answered():
            assert theirs == value
            assert pieces == heard[: len(pieces)]
            assert len(pieces) > 3, "followers hear them while they are made"
        assert each.computations() == 0


def test_a_failure_in_the_middle_is_everyones(redis: RedisServer, four: list[Sharer]) -> None:
    for each in four[:2]:
        each.ask("break off", pieces=25, fails=True)
    for each in four[:2]:
        ((heard, error),) = each.answered()
        assert heard
        assert error == "Upstream"
    assert sum(each.computations() for each in four) == 1


def test_a_zombie_does_not_overwrite_its_successor(redis: RedisServer, four: list[Sharer]) -> None:
    for each in four:
        each.ask("zombie", seconds=0.3)
    zombie = leader(four)
    zombie.signal(signal.SIGSTOP)
    others = [each for each in four if each is not zombie]
    found = [each.answered() for each in others]
    assert found[0] == found[1] == found[2]
    zombie.signal(signal.SIGCONT)
    assert zombie.answered() != found[0], "its own callers get what it computed"
    assert stored(redis, "zombie") == found[0][0]
    wait_until(lambda: _asked(zombie, "zombie") == found[0], 5)
    assert stored(redis, "zombie") == found[0][0]
    for each in four:
        each.computations()


def test_a_killed_leader_is_taken_over_from_by_one(redis: RedisServer) -> None:
    with sharers(redis, 3) as processes:
        for each in processes:
            each.ask("killed", seconds=0.3, callers=50)
        first = leader(processes)
        began = time.monotonic()
        first.signal(signal.SIGKILL)
        others = [each for each in processes if each is not first]
        found = [value for each in others for value in each.answered()]
        assert time.monotonic() - began < 10 * LEASE_SECONDS
        assert len(found) == 100
        assert all(value == found[0] for value in found)
        assert sum(each.computations() for each in others) == 1
        # And one that is killed in the middle of its talk: what has been heard cannot be taken back.
        others[0].ask("killed talking", pieces=100)
        others[0].expect("computing")
        others[1].ask("killed talking", pieces=100)
        time.sleep(1.0)
        others[0].signal(signal.SIGKILL)
        ((heard, error),) = others[1].answered()
        assert heard
        assert error == "Unavailable"


def test_when_redis_is_away_each_process_computes_once(redis: RedisServer, four: list[Sharer]) -> None:
    redis.kill()
    for each in four[:2]:
        each.ask("alone", seconds=0.2, callers=20)
    for each in four[:2]:
        assert len(each.answered()) == 20
        assert each.computations() == 1


def _asked(sharer: Sharer, text: str) -> list[Any]:
    sharer.ask(text)
    return sharer.answered()
