"""Room for so many commands at once; others wait in line, and not for long.

First come, first served: redis-py's own waiting pool lets whoever gives a connection back take it again before those
who wait, and then some of them wait in vain on a healthy server.
"""

from __future__ import annotations

import asyncio
import time

from ragagent.remote import meter

SLOT_SECONDS = 0.05


class Slots:
    def __init__(self, number: int) -> None:
        self._free = asyncio.Semaphore(number)  # FIFO
        self.number = number
        self.waiting = 0

    async def take(self) -> bool:
        """Return whether there was room in time. Who got True gives back."""
        if not self._free.locked():
            return await self._free.acquire()  # Does not wait, and needs no timer.
        begun = time.perf_counter()
        self.waiting += 1
        is_taken = False
        try:
            async with asyncio.timeout(SLOT_SECONDS):
                is_taken = await self._free.acquire()
        except TimeoutError:
            pass
        finally:
            self.waiting -= 1
        meter.waited(time.perf_counter() - begun, in_vain=not is_taken)
        return is_taken

    def give(self) -> None:
        self._free.release()
