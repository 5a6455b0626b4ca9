"""Redis comes and goes, and a caller gets what the limit says all the same."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ragagent.errors import Unavailable
from ragagent.limits.gcra import SECOND, Demand, Seat
from ragagent.limits.ledger import Ledger, OnRedisDown
from ragagent.remote.connection import Remote
from redis_server import RedisServer

pytestmark = pytest.mark.anyio

TEN = Demand("rag:l:{a}:ten", 100 * SECOND, 1000 * SECOND)


@pytest.fixture
async def remote(redis: RedisServer) -> AsyncIterator[Remote]:
    async with Remote(redis.url, timeout_seconds=0.1) as remote:
        yield remote


async def admitted(ledger: Ledger, attempts: int) -> int:
    return sum([(await ledger.take([TEN], [])).is_allowed for _ in range(attempts)])


async def until(remote: Remote, *, is_reachable: bool) -> None:
    async with asyncio.timeout(10):
        while remote.is_reachable is not is_reachable:
            await remote.get("rag:x")
            await asyncio.sleep(0.01)


async def test_without_redis_all_processes_of_a_host_share_the_table(tmp_path: Path) -> None:
    one, other = Ledger(tmp_path / "limits", None), Ledger(tmp_path / "limits", None)
    assert await admitted(one, 6) + await admitted(other, 6) == 10
    one.close()
    other.close()


async def test_where_nobody_is_limited_there_is_no_table(tmp_path: Path) -> None:
    Ledger(tmp_path / "limits", None).close()
    assert not (tmp_path / "limits").exists()


async def test_what_cannot_be_counted_is_let_through_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(tmp_path / "missing" / "limits", None)
    assert await admitted(ledger, 20) == 20
    assert await ledger.add([TEN]) == ()
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    (tmp_path / "missing").mkdir()
    assert await admitted(ledger, 20) == 10
    ledger.close()


@pytest.mark.redis
@pytest.mark.parametrize("fault", ["pause", "kill"])
@pytest.mark.parametrize("meanwhile", [3, 6])
async def test_the_going_and_coming_of_redis_gives_nobody_a_second_burst(
    redis: RedisServer, remote: Remote, tmp_path: Path, fault: str, meanwhile: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    degraded: list[None] = []
    ledger = Ledger(tmp_path / "limits", remote, on_degraded=lambda: degraded.append(None))
    total = await admitted(ledger, 4)
    getattr(redis, fault)()
    await until(remote, is_reachable=False)
    total += await admitted(ledger, meanwhile)
    assert (total, len(degraded)) == (4 + meanwhile, meanwhile)
    if fault == "kill":
        redis.start()  # empty
    redis.resume()
    await until(remote, is_reachable=True)
    total += await admitted(ledger, 20)
    assert total == 10
    said = [record.message for record in caplog.records if record.name == "ragagent.limits.ledger"]
    assert said == [
        "Rate limits go on without Redis: each host counts for itself.",
        "Rate limits are counted in Redis.",
    ]
    ledger.close()


@pytest.mark.redis
async def test_what_was_taken_without_redis_is_settled_with_it(
    redis: RedisServer, remote: Remote, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "limits", remote)
    redis.pause()
    await until(remote, is_reachable=False)
    assert await admitted(ledger, 20) == 10
    redis.resume()
    await until(remote, is_reachable=True)
    (level,) = await ledger.add([Demand(TEN.key, -300 * SECOND, TEN.capacity)])
    assert round(level / SECOND) == 700
    assert await admitted(ledger, 20) == 3
    ledger.close()


@pytest.mark.redis
async def test_seats_stay_taken_while_redis_goes_and_comes(redis: RedisServer, remote: Remote, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "limits", remote)

    def seat(holder: str) -> list[Seat]:
        return [Seat("rag:l:{a}:seats", 2, holder)]

    assert (await ledger.take([], seat("with"))).is_allowed
    redis.kill()
    await until(remote, is_reachable=False)
    assert (await ledger.take([], seat("without"))).is_allowed
    assert not (await ledger.take([], seat("too many"))).is_allowed
    redis.start()
    await until(remote, is_reachable=True)
    for holder in ("with", "without"):
        await ledger.hold(seat(holder))
    assert not (await ledger.take([], seat("too many"))).is_allowed
    await ledger.add([], seat("with"))
    assert (await ledger.take([], seat("next"))).is_allowed
    with contextlib.closing(redis.admin()) as admin:
        assert set(admin.zrange("rag:l:{a}:seats", 0, -1)) == {b"without", b"next"}
    ledger.close()


@pytest.mark.redis
@pytest.mark.parametrize("choice", ["open", "closed"])
async def test_an_operator_may_choose_what_happens_without_redis(
    redis: RedisServer, remote: Remote, tmp_path: Path, choice: OnRedisDown
) -> None:
    ledger = Ledger(tmp_path / "limits", remote, choice)
    redis.kill()
    await until(remote, is_reachable=False)
    if choice == "open":
        assert await admitted(ledger, 20) == 20
    else:
        with pytest.raises(Unavailable) as refused:
            await ledger.take([TEN], [])
        assert refused.value.retry_after == 1
    ledger.close()


@pytest.mark.redis
async def test_a_redis_that_takes_no_writes_is_as_good_as_none(
    redis: RedisServer, remote: Remote, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(tmp_path / "limits", remote)
    assert await admitted(ledger, 4) == 4
    with contextlib.closing(redis.admin()) as admin:
        admin.config_set("maxmemory", 1)
    assert await admitted(ledger, 20) == 6
    assert "Rate limits go on without Redis: each host counts for itself." in caplog.messages
    ledger.close()


@pytest.mark.redis
async def test_two_hosts_share_redis_and_not_their_tables(redis: RedisServer, remote: Remote, tmp_path: Path) -> None:
    here, there = Ledger(tmp_path / "here", remote), Ledger(tmp_path / "there", remote)
    assert await admitted(here, 6) + await admitted(there, 6) == 10
    # What one of them gives back the other's older knowledge does not take again.
    await there.add([Demand(TEN.key, -10 * TEN.cost, TEN.capacity)])
    assert await admitted(here, 20) == 10
    here.close()
    there.close()
