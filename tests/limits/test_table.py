"""The host's table: exact over processes, whoever dies in the middle of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crowd import crowd
from ragagent.limits import table as module
from ragagent.limits.gcra import MINUTE, SECOND, Demand, Seat
from ragagent.limits.ledger import Ledger
from ragagent.limits.table import SIZE, Busy, Table

CHEAP = Demand("cheap", SECOND, MINUTE)
DEAR = Demand("dear", MINUTE, MINUTE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "limits"


@pytest.fixture
def table(path: Path) -> Iterator[Table]:
    with Table(path) as table:
        yield table


def level(table: Table, demand: Demand) -> float:
    """Return the level in whole seconds: some milliseconds have gone by."""
    return round(table.known([demand])[0][0] / SECOND)


def test_what_is_refused_takes_nothing_of_anything(table: Table) -> None:
    seat = Seat("seats", 1, "me")
    assert table.take([CHEAP, DEAR], [seat], MINUTE).is_allowed
    refused = table.take([CHEAP, DEAR], [Seat("others", 1, "me")], MINUTE)
    assert not refused.is_allowed
    assert [round(found / SECOND) for found in refused.levels] == [1, 60]
    assert (level(table, CHEAP), level(table, DEAR)) == (1, 60)
    assert table.take([CHEAP], [Seat("others", 1, "another")], MINUTE).held == [0]
    assert not table.take([CHEAP], [Seat("seats", 1, "another")], MINUTE).is_allowed
    assert level(table, CHEAP) == 2


def test_what_was_estimated_is_settled_and_a_seat_given_up(table: Table) -> None:
    seat = Seat("seats", 1, "me")
    table.take([DEAR], [seat], MINUTE)
    after = table.add([Demand("dear", -50 * SECOND, MINUTE)], [seat])
    assert (round(after[0] / SECOND), level(table, DEAR)) == (10, 10)
    assert table.take([], [Seat("seats", 1, "another")], MINUTE).is_allowed
    assert table.add([Demand("dear", -MINUTE, MINUTE)], []) == [0]
    assert level(table, DEAR) == 0
    assert table.add([Demand("dear", 10 * MINUTE, MINUTE)], [])[0] > 9 * MINUTE  # It cost more than there was.


def test_a_lease_that_nobody_renews_ends(table: Table) -> None:
    assert table.take([], [Seat("seats", 1, "me")], SECOND // 20).is_allowed
    table.hold([Seat("seats", 1, "me")], SECOND // 5)
    time.sleep(0.06)
    assert not table.take([], [Seat("seats", 1, "another")], MINUTE).is_allowed
    time.sleep(0.15)
    assert table.take([], [Seat("seats", 1, "another")], MINUTE).is_allowed


def test_it_tells_what_it_decided_from_what_it_was_told(table: Table) -> None:
    table.note([("cheap", 5 * SECOND)])
    assert (level(table, CHEAP), table.known([CHEAP])[0][1]) == (5, False)
    table.take([CHEAP], [], 0)
    assert (level(table, CHEAP), table.known([CHEAP])[0][1]) == (6, True)
    table.note([("cheap", 7 * SECOND)])
    assert (level(table, CHEAP), table.known([CHEAP])[0][1]) == (7, False)


def test_another_process_reads_on_where_this_one_wrote(table: Table, path: Path) -> None:
    table.take([DEAR], [], 0)
    with Table(path) as other:
        assert not other.take([DEAR], [], 0).is_allowed
    assert path.stat().st_size == SIZE
    assert path.stat().st_blocks * 512 >= SIZE
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("head", [b"", b"ragagent limits 0\n", b"\xff" * SIZE])
def test_a_file_of_anything_else_is_begun_anew(path: Path, head: bytes) -> None:
    path.write_bytes(head)
    with Table(path) as table:
        assert table.take([DEAR], [], 0).levels == [0]


def test_a_table_of_an_earlier_boot_is_begun_anew(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Table(path) as table:
        table.take([DEAR], [], 0)
    boot = tmp_path / "boot_id"
    boot.write_text("another\n")
    monkeypatch.setattr(module, "_BOOT", boot)
    with Table(path) as table:
        assert table.take([DEAR], [], 0).levels == [0]


def test_four_processes_are_allowed_exactly_what_there_is(path: Path, tmp_path: Path) -> None:
    allowed = crowd("table", str(path), tmp_path)
    assert sum(allowed) == 100
    assert sum(count > 0 for count in allowed) > 1, "they did not run at the same time"


HOLDER = """
import sys, time
from pathlib import Path
from ragagent.limits.gcra import Demand
from ragagent.limits.table import Table
table = Table(Path(sys.argv[1]))
with table._lock() as now:
    table._rates.put("dear", now, 60_000_000, is_ours=True)
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock and does not go on."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, env=env) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"holds\n"
        yield holder
        holder.kill()


@pytest.mark.anyio
async def test_who_holds_the_lock_holds_nobody_up_for_long_and_gives_it_up_with_its_life(
    holder: subprocess.Popen[bytes], path: Path
) -> None:
    ledger, began = Ledger(path, None), time.monotonic()
    beats = asyncio.create_task(_beats(began + 0.05))
    assert (await ledger.take([DEAR], [])).is_allowed
    assert time.monotonic() - began < 2
    assert await beats > 5, "the loop stood still"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not (await ledger.take([DEAR], [])).is_allowed
    ledger.close()


def test_who_finds_the_lock_held_has_done_nothing(table: Table, path: Path) -> None:
    with table._lock():
        with pytest.raises(Busy):
            Table(path)
    with Table(path) as other:
        with table._lock():
            for work in (
                lambda: other.take([DEAR], [], 0),
                lambda: other.add([DEAR], []),
                lambda: other.note([("dear", 1)]),
                lambda: other.hold([Seat("seats", 1, "me")], MINUTE),
            ):
                with pytest.raises(Busy):
                    work()
        assert other.take([DEAR], [Seat("seats", 1, "me")], 0).is_allowed


async def _beats(until: float) -> int:
    count = 0
    while time.monotonic() < until:
        await asyncio.sleep(0.001)
        count += 1
    return count
