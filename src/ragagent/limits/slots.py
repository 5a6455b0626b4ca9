"""The two regions of the host's table: open addressing over mapped memory, without deletion.

A key may lie in any of the few slots from its hash on, and all of them are looked at; a slot whose time has passed is
free. So nothing is ever removed, nothing has to be swept, and a chain cannot break. Slots are written number by number,
the key's hash last: who is killed in between leaves a slot that is free, or one whose time is old or new.

    rate    hash, time at which the level has run out (microseconds of the host's clock)
    seat    hash, time at which the lease ends, hash of the holder

The lowest bit of a rate's time says that it was decided by this table, and Redis does not know of it.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from typing import Final

from ragagent.limits.gcra import MAX_LEVEL

RATES: Final = 49_152
RATE_WINDOW: Final = 16  # with half of the slots in use, one window in 100,000 is full
SEATS: Final = 16_384
SEAT_WINDOW: Final = 512

_NUMBER: Final = struct.Struct("=Q")
_RATE_BYTES: Final = 16
_SEAT_BYTES: Final = 24
_RATES: Final = struct.Struct(f"={2 * RATE_WINDOW}Q")

RATES_SIZE: Final = (RATES + RATE_WINDOW) * _RATE_BYTES  # no window runs over the end of its region
SEATS_SIZE: Final = (SEATS + SEAT_WINDOW) * _SEAT_BYTES


class RateSlots:
    def __init__(self, memory: memoryview) -> None:
        self._memory = memory

    def get(self, key: str, now: int) -> tuple[int, bool]:
        """Return the key's level, and whether this table decided it. Needs no lock: a number is read whole."""
        hashed = digest(key)
        numbers = _RATES.unpack_from(self._memory, _rate_at(hashed))
        for position in range(0, 2 * RATE_WINDOW, 2):
            if numbers[position] == hashed:
                level = (numbers[position + 1] >> 1 << 1) - now
                if 0 < level <= MAX_LEVEL:
                    return level, bool(numbers[position + 1] & 1)
                break
        return 0, False

    def put(self, key: str, now: int, level: int, *, is_ours: bool) -> None:
        """Write the key's level. Where its window is full, it is not written: who asks finds none, and is let in."""
        hashed = digest(key)
        start = _rate_at(hashed)
        numbers = _RATES.unpack_from(self._memory, start)
        found = None
        for position in range(0, 2 * RATE_WINDOW, 2):
            if numbers[position] == hashed:
                found = position
                break
            if found is None and not 0 < numbers[position + 1] - now <= MAX_LEVEL:
                found = position
        if found is not None:
            at = start + 8 * found
            _NUMBER.pack_into(self._memory, at + 8, (now + min(level, MAX_LEVEL)) >> 1 << 1 | is_ours)
            _NUMBER.pack_into(self._memory, at, hashed)


class SeatSlots:
    """A key holds as many slots as it has seats taken."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory

    def held(self, key: str, limit: int, now: int) -> int:
        hashed = digest(key)
        numbers = self._window(hashed, limit)
        return sum(
            numbers[position] == hashed and 0 < numbers[position + 1] - now <= MAX_LEVEL
            for position in range(0, len(numbers), 3)
        )

    def sit(self, key: str, limit: int, holder: str, now: int, until: int) -> None:
        """Hold a seat until that time: the holder's own, if there is one, else a new one. `until` 0: give it up."""
        hashed, mine = digest(key), digest(holder)
        numbers = self._window(hashed, limit)
        found = free = None
        for position in range(0, len(numbers), 3):
            if not 0 < numbers[position + 1] - now <= MAX_LEVEL:
                free = position if free is None else free
            elif numbers[position] == hashed and numbers[position + 2] == mine:
                found = position
                break
        if found is None and until:
            found = free
        if found is not None:
            at = _seat_at(hashed) + 8 * found
            _NUMBER.pack_into(self._memory, at, 0)  # Until it is whole, it is nobody's.
            _NUMBER.pack_into(self._memory, at + 8, until)
            _NUMBER.pack_into(self._memory, at + 16, mine)
            _NUMBER.pack_into(self._memory, at, hashed)

    def _window(self, hashed: int, limit: int) -> tuple[int, ...]:
        slots = min(2 * limit + RATE_WINDOW, SEAT_WINDOW)
        return struct.unpack_from(f"={3 * slots}Q", self._memory, _seat_at(hashed))


@lru_cache(maxsize=16_384)
def digest(text: str) -> int:
    """Return 64 bits of the text's hash, never 0: that is what an empty slot holds."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) or 1


def _rate_at(hashed: int) -> int:
    return hashed % RATES * _RATE_BYTES


def _seat_at(hashed: int) -> int:
    return hashed % SEATS * _SEAT_BYTES
