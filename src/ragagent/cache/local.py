"""L1: the values that this process holds itself, bounded in bytes, the least recently used first to go.

`peek` and its companions are plain calls, for the hot path: a hit must not cost an await. The same store is also an
aiocache backend (the underscored methods), so that whatever speaks aiocache can use it. Expiry is lazy: no timer per
key; what has expired weighs until it is asked for or pushed out.

One event loop owns it: no lock.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aiocache.base import BaseCache
from aiocache.serializers import NullSerializer

ITEM_BYTES = 340  # what CPython spends on an entry beside its key and value: measured as resident memory
LARGEST_SHARE = 16  # one item may take at most this fraction of the whole, or it would push out everything else


@dataclass(frozen=True, slots=True)
class LocalStats:
    entries: int
    bytes: int
    max_bytes: int
    evictions: int
    refusals: int


class ByteLRU(BaseCache):  # type: ignore[misc]  # aiocache has no types
    """At most `max_bytes` of keys and values, counted with what an entry costs; 0 holds nothing."""

    NAME = "bytelru"

    def __init__(self, max_bytes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        # timeout=0: aiocache's default wraps every call in a task, about 12 µs each.
        super().__init__(serializer=NullSerializer(), timeout=0)
        self.max_bytes = max_bytes
        self._clock = clock
        self._items: OrderedDict[str, tuple[bytes, float, int]] = OrderedDict()  # key: value, deadline, weight
        self._bytes = 0
        self._evictions = 0
        self._refusals = 0

    def __len__(self) -> int:
        return len(self._items)

    def peek(self, key: str) -> bytes | None:
        """Return the live value of `key`, which is then the most recently used."""
        item = self._items.get(key)
        if item is None:
            return None
        if item[1] <= self._clock():
            self.drop(key)
            return None
        self._items.move_to_end(key)
        return item[0]

    def put(self, key: str, value: bytes, ttl: float | None = None) -> bool:
        """Hold `value` for `ttl` seconds (None: until pushed out). False: too large; an older value is gone as well."""
        self.drop(key)
        weight = len(key) + len(value) + ITEM_BYTES
        if weight * LARGEST_SHARE > self.max_bytes:
            self._refusals += 1
            return False
        self._items[key] = (value, math.inf if ttl is None else self._clock() + ttl, weight)
        self._bytes += weight
        while self._bytes > self.max_bytes:
            _, (_, _, oldest) = self._items.popitem(last=False)
            self._bytes -= oldest
            self._evictions += 1
        return True

    def drop(self, key: str) -> bool:
        item = self._items.pop(key, None)
        if item is None:
            return False
        self._bytes -= item[2]
        return True

    def purge(self, prefix: str = "") -> int:
        """Drop every key that begins with `prefix`; return how many."""
        doomed = [key for key in self._items if key.startswith(prefix)]
        for key in doomed:
            self.drop(key)
        return len(doomed)

    def stats(self) -> LocalStats:
        return LocalStats(len(self._items), self._bytes, self.max_bytes, self._evictions, self._refusals)

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
        item = self._items.get(key)
        return None if item is None or item[1] == math.inf else item[1] - self._clock()
