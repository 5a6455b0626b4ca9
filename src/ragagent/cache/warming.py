"""How a worker begins warm: it takes in what others have found hot, with or without a Redis.

    arriving    from its first second of service on, for a minute: every file that was written since it began; where
                there is none, as after a crash, it leaves a wish
    staying     after that minute: grants a wish, with its hottest entries in one file (warm.py)
    leaving     told to go, beside the drain: the same, for those that take its place

Nobody waits for anybody: a file that comes late, or never, costs some misses. A successor serves before the old one
leaves, so a file for it is always younger than itself. That rule alone keeps out what a former server left, and what
was purged before this process began; a purge after that ends the arriving, since a file may hold what was purged.
Files are gone after LIFE_SECONDS, by whoever is there: it is what users asked and were told, and no place to keep it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ragagent.cache import envelope, warm
from ragagent.cache.envelope import Refused
from ragagent.cache.erasing.tags import Tag, Tags
from ragagent.cache.local import LocalCache
from ragagent.cache.warm import Warm

WATCH_SECONDS = 60.0
LOOK_SECONDS = 0.2
LIFE_SECONDS = 15.0  # many looks: all who are to read a file have read it
WISH_SECONDS = 3.0  # by then, one that is replaced has left its file
STAY_SECONDS = 2.0  # between two looks for wishes
LEAVE_SECONDS = 2.0
SLICE = 16  # entries taken in between two turns of the loop: about 0.1 ms

log = logging.getLogger(__name__)


class Warming:
    """`epoch()` moves with every purge of the cache that `local` is a part of."""

    def __init__(
        self,
        local: LocalCache,
        directory: Path,
        epoch: Callable[[], int],
        tags: Tags,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._local = local
        self._directory = directory
        self._epoch = epoch
        self._tags = tags
        self._clock = clock
        self._since = clock()
        self._began = epoch()
        self._read: set[Path] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to arrive, in a task of its own. Call it when the process serves."""
        self._task = asyncio.create_task(self._watch(), name="warming")

    async def leave(self) -> None:
        """Leave a file for whoever comes. Takes LEAVE_SECONDS at most, and never raises."""
        await self.aclose()
        await self._hand_on()

    async def look(self) -> None:
        """Take in what has been left since the last look, and remove what has lain too long."""
        await asyncio.to_thread(warm.clean, self._directory, self._clock() - LIFE_SECONDS)
        if self._is_purged:
            return
        for path in await asyncio.to_thread(warm.fresh, self._directory, self._since):
            if path not in self._read:
                self._read.add(path)
                await self._take(await asyncio.to_thread(warm.read, path))

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def _is_purged(self) -> bool:
        return self._epoch() != self._began

    async def _watch(self) -> None:
        await self._arrive()
        while True:
            # Where workers become fewer, those that leave have no successor that would clean up after them.
            await asyncio.to_thread(warm.clean, self._directory, self._clock() - LIFE_SECONDS)
            if await asyncio.to_thread(warm.grant, self._directory):
                await self._hand_on()
            await asyncio.sleep(STAY_SECONDS)

    async def _arrive(self) -> None:
        began, has_wished = time.monotonic(), False
        while (age := time.monotonic() - began) < WATCH_SECONDS and not self._is_purged:
            await self.look()
            if age >= WISH_SECONDS and not self._read and not has_wished:
                has_wished = True
                with contextlib.suppress(OSError):  # Then there will be no file either.
                    await asyncio.to_thread(warm.wish, self._directory)
            await asyncio.sleep(LOOK_SECONDS)

    async def _hand_on(self) -> None:
        held = self._hottest()
        if not held:
            return
        tags = self._tags.by_key()
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await asyncio.to_thread(lambda: warm.write(self._directory, _fitting(held, tags)))
        except (OSError, TimeoutError) as exc:
            log.warning("Nothing is left for the next worker (%s): it begins with an empty cache.", type(exc).__name__)

    async def _take(self, entries: Sequence[Warm]) -> None:
        taken = 0
        for first in range(0, len(entries), SLICE):
            if self._is_purged:
                break
            taken += sum(self._adopt(entry) for entry in entries[first : first + SLICE])
            await asyncio.sleep(0)
        if entries:
            log.info("Began with %d of the %d hottest values of another worker.", taken, len(entries))

    def _adopt(self, entry: Warm) -> bool:
        if self._tags.is_erased(entry.tags):
            return False
        now = self._clock()
        found = envelope.decode(entry.key, entry.plain, now)
        if isinstance(found, Refused) or not self._local.adopt(entry.key, found.plain, found.gone_at - now):
            return False
        self._tags.file(entry.key, entry.tags)  # What is erased from now on finds it.
        return True

    def _hottest(self) -> list[tuple[str, bytes]]:
        """Return references only: 10,000 values are a matter of milliseconds, and what is left to do is a thread's."""
        held, size = [], 0
        for key, plain in self._local.hottest():
            size += len(plain)
            if size > warm.MAX_BYTES:
                break
            held.append((key, plain))
        return held


def _fitting(held: Sequence[tuple[str, bytes]], tags: Mapping[str, Sequence[Tag]]) -> Iterator[Warm]:
    size = 0
    for key, plain in held:
        entry = Warm(key, tuple(tags.get(key, ())), plain)
        size += entry.size
        if size > warm.MAX_BYTES:
            return
        yield entry
