"""The limits of one host: a small table that its workers share, memory-mapped from the data directory.

It counts where there is no Redis, and where Redis is away. It is exact over all workers, outlives them and reloads, and
costs some ten microseconds: a lock of the kernel's (flock) around a look at two cache lines.

    a holder of the lock is killed    the kernel gives it up; what was being written is one number, old or new
    a holder stands still             nobody waits longer than their caller wants to: `Busy`
    the table is full                 what finds no slot is let in, uncounted
    the machine restarts              its clock begins anew, and so does the table, whose head names the boot
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from ragagent.limits.gcra import Demand, Seat, Taken, is_allowed
from ragagent.limits.slots import RATES_SIZE, SEATS_SIZE, RateSlots, SeatSlots

_HEAD: Final = 64
_MAGIC: Final = b"ragagent limits 1\n"
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
SIZE: Final = _HEAD + RATES_SIZE + SEATS_SIZE


class Busy(Exception):
    """Another process has the lock just now."""


class Table:
    """The table in the file at `path`, made on first use. Raises OSError, as for a full disk.

    One per process, opened after the fork and used by one thread: the lock is the open file's. To open it, and every
    method but `known`, raises Busy, and has done nothing then. Levels, costs and leases are microseconds.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with self._lock():
                # All of it, now: to write into a hole of a mapped file on a full disk is the end of the process.
                os.posix_fallocate(self._file, 0, SIZE)
                self._map = mmap.mmap(self._file, SIZE)
                self._begin()
        except BaseException:
            os.close(self._file)
            raise
        self._memory = memoryview(self._map)
        self._rates = RateSlots(self._memory[_HEAD : _HEAD + RATES_SIZE])
        self._seats = SeatSlots(self._memory[_HEAD + RATES_SIZE :])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._file)  # The map goes with the last that looks at it.

    def take(self, demands: Sequence[Demand], seats: Sequence[Seat], lease: int) -> Taken:
        """Take all that is asked for, or nothing; the seats are held for the length of the lease."""
        with self._lock() as now:
            levels = [self._rates.get(demand.key, now)[0] for demand in demands]
            held = [self._seats.held(seat.key, seat.limit, now) for seat in seats]
            if allowed := is_allowed(demands, levels, seats, held):
                for demand, level in zip(demands, levels, strict=True):
                    self._rates.put(demand.key, now, level + demand.cost, is_ours=True)
                for seat in seats:
                    self._seats.sit(seat.key, seat.limit, seat.token, now, now + lease)
        return Taken(allowed, levels, held)

    def add(self, demands: Sequence[Demand], seats: Sequence[Seat]) -> list[int]:
        """Add each cost, which may be below zero, whatever the capacity, and give the seats up; return the levels."""
        levels = []
        with self._lock() as now:
            for demand in demands:
                level = max(self._rates.get(demand.key, now)[0] + demand.cost, 0)
                self._rates.put(demand.key, now, level, is_ours=True)
                levels.append(level)
            for seat in seats:
                self._seats.sit(seat.key, seat.limit, seat.token, now, 0)
        return levels

    def note(self, levels: Sequence[tuple[str, int]]) -> None:
        """Write down levels that Redis has decided, so that this table can go on from there."""
        with self._lock() as now:
            for key, level in levels:
                self._rates.put(key, now, level, is_ours=False)

    def hold(self, seats: Sequence[Seat], lease: int) -> None:
        """Hold the seats for a lease from now on, whether they are taken already or not, and whatever their limit."""
        with self._lock() as now:
            for seat in seats:
                self._seats.sit(seat.key, seat.limit, seat.token, now, now + lease)

    def known(self, demands: Sequence[Demand]) -> list[tuple[int, bool]]:
        """Return the level of each key, and whether this table decided it. Takes no lock."""
        now = _now()
        return [self._rates.get(demand.key, now) for demand in demands]

    @contextmanager
    def _lock(self) -> Iterator[int]:
        # fcntl's own, and not portalocker's wrapper around it, which takes longer than what it guards.
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy from None
        try:
            yield _now()
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _begin(self) -> None:
        """Empty the table, unless it is of this boot and this layout."""
        head = (_MAGIC + _BOOT.read_bytes().strip()).ljust(_HEAD, b"\0")[:_HEAD]
        if self._map[:_HEAD] != head:
            self._map[:] = bytes(SIZE)
            self._map[:_HEAD] = head


def _now() -> int:
    """Return the microsecond of a clock that all processes of this machine share, and that nobody sets."""
    return time.monotonic_ns() // 1000
