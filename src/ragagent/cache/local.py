"""L1: the values that this process holds itself, bounded in bytes; `admission.py` says which of them.

`peek` and its companions are plain calls, for the hot path: a hit must not cost an await. The same store is also an
aiocache backend (the underscored methods), so that whatever speaks aiocache can use it. There is no timer: an expired
value is never served, and goes when it is asked for, or when a round comes by, a step with each put.

One event loop owns it: no lock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from aiocache.base import BaseCache
from aiocache.serializers import NullSerializer

from ragagent.cache.admission import Policy, Queues
from ragagent.cache.chain import Item

ITEM_BYTES = 400  # what CPython spends on an entry beside its key and value: measured as resident memory
LARGEST_SHARE = 16  # one item may take at most this fraction of the whole, or it would push out everything else


@dataclass(frozen=True, slots=True)
class LocalStats:
    entries: int
    bytes: int
    max_bytes: int
    evictions: int
    refusals: int
    expired: int
    ghosts: int


class LocalCache(BaseCache):  # type: ignore[misc]  # aiocache has no types
    """At most `max_bytes` of keys and values, counted with what an entry costs; 0 holds nothing."""

    NAME = "local"

    def __init__(self, max_bytes: int, policy: Policy = "2q", *, clock: Callable[[], float] = time.monotonic) -> None:
        # timeout=0: aiocache's default wraps every call in a task, about 12 µs each.
        super().__init__(serializer=NullSerializer(), timeout=0)
        self.max_bytes = max_bytes
        self._clock = clock
        self._queues = Queues(max_bytes, policy)
        self._evictions = 0
        self._refusals = 0
        self._expired = 0

    def __len__(self) -> int:
        return len(self._queues)

    def __contains__(self, key: object) -> bool:
        """Whether it is held, expired or not; this is no use of it."""
        return isinstance(key, str) and self._queues.look(key) is not None

    def peek(self, key: str) -> bytes | None:
        """Return the live value of `key`, which is then the most recently used."""
        item = self._queues.find(key)
        if item is None:
            return None
        if item.deadline <= self._clock():
            self._expire_now(item)
            return None
        return item.value

    def put(self, key: str, value: bytes, ttl: float | None = None) -> bool:
        """Hold `value` for `ttl` seconds (None: until pushed out). False: too large; an older value is gone as well."""
        now = self._clock()
        self._sweep(now)
        self._queues.retire(key)
        weight = _weight(key, value)
        if not self._fits(weight):
            self._refusals += 1
            return False
        self._evictions += self._queues.add(Item(key, value, math.inf if ttl is None else now + ttl, weight))
        return True

    def adopt(self, key: str, value: bytes, ttl: float) -> bool:
        """Hold a value that was hot in another process, if there is none of that key and room: nothing goes for it.

        Hand over the hottest first: each is taken for less recently used than all that is here.
        """
        weight = _weight(key, value)
        if self._queues.look(key) is not None or not self._fits(weight):
            return False
        return self._queues.adopt(Item(key, value, self._clock() + ttl, weight))

    def hottest(self) -> Iterator[tuple[str, bytes]]:
        """Yield keys and live values, what is most worth keeping first. Change nothing meanwhile."""
        now = self._clock()
        return ((item.key, item.value) for item in self._queues.hottest() if item.deadline > now)

    def drop(self, key: str) -> bool:
        return self._queues.remove(key) is not None

    def purge(self, prefix: str = "") -> int:
        """Drop every key that begins with `prefix`; return how many."""
        doomed = [key for key in self._queues if key.startswith(prefix)]
        for key in doomed:
            self.drop(key)
        return len(doomed)

    def stats(self) -> LocalStats:
        return LocalStats(
            entries=len(self._queues),
            bytes=self._queues.bytes,
            max_bytes=self.max_bytes,
            evictions=self._evictions,
            refusals=self._refusals,
            expired=self._expired,
            ghosts=self._queues.ghosts,
        )

    def _sweep(self, now: float) -> None:
        for item in list(self._queues.walk()):
            if item.deadline <= now:
                self._expire_now(item)

    def _expire_now(self, item: Item) -> None:
        self._queues.retire(item.key)
        self._expired += 1

    def _fits(self, weight: int) -> bool:
        return weight * LARGEST_SHARE <= self.max_bytes

    # aiocache's side. A ttl of 0 means "no expiry" there.

    async def _get(self, key: str, encoding: str | None = None, _conn: object = None) -> bytes | None:
        return self.peek(key)

    async def _gets(self, key: str, encoding: str | None = None, _conn: object = None) -> bytes | None:
        return self.peek(key)

    async def _multi_get(
        self, keys: Iterable[str], encoding: str | None = None, _conn: object = None
    ) -> list[bytes | None]:
        return [self.peek(key) for key in keys]

    async def _set(
        self, key: str, value: bytes, ttl: float | None = None, _cas_token: object = None, _conn: object = None
    ) -> bool:
        if _cas_token is not None and _cas_token != self.peek(key):
            return False
        return self.put(key, value, ttl or None)

    async def _multi_set(
        self, pairs: Iterable[tuple[str, bytes]], ttl: float | None = None, _conn: object = None
    ) -> bool:
        stored = [self.put(key, value, ttl or None) for key, value in pairs]
        return all(stored)

    async def _add(self, key: str, value: bytes, ttl: float | None = None, _conn: object = None) -> bool:
        if self.peek(key) is not None:
            raise ValueError(f"Key '{key}' already exists.")
        return self.put(key, value, ttl or None)

    async def _exists(self, key: str, _conn: object = None) -> bool:
        return self.peek(key) is not None

    async def _increment(self, key: str, delta: int, _conn: object = None) -> int:
        """Count as Redis does: decimal text, the deadline unchanged."""
        try:
            number = int(self.peek(key) or b"0") + delta
        except ValueError:
            raise TypeError(f"Key '{key}' does not hold an integer.") from None
        self.put(key, str(number).encode(), self._remaining(key))
        return number

    async def _expire(self, key: str, ttl: float, _conn: object = None) -> bool:
        value = self.peek(key)
        return value is not None and self.put(key, value, ttl or None)

    async def _delete(self, key: str, _conn: object = None) -> int:
        return int(self.drop(key))

    async def _clear(self, namespace: str | None = None, _conn: object = None) -> bool:
        self.purge(namespace or "")
        return True

    async def _redlock_release(self, key: str, value: bytes) -> int:
        return int(self.peek(key) == value and self.drop(key))

    def _remaining(self, key: str) -> float | None:
        item = self._queues.look(key)
        return None if item is None or item.deadline == math.inf else item.deadline - self._clock()


def _weight(key: str, value: bytes) -> int:
    return len(key) + len(value) + ITEM_BYTES
