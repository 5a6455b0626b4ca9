"""Which values the local tier keeps: what is asked for once must not push out what is asked for often.

    new ─────────→ probation, by arrival ──→ out, and its key is remembered for a while: a ghost
                       │ asked for again           │ put again
                       ↓                           ↓
                   main, by last use ──────→ out

This is 2Q (Johnson and Shasha, 1994) but for one thing: there, what is asked for again in probation stays, and must be
computed once more before it is believed. A computation is what we cannot afford, and when a write has changed every key
the new ones come up sooner this way. bench/cache.py has the hit ratios. With policy "lru" everything goes to main.

Pure: no clock, and values are never looked at. An item's weight is its maker's to say; a ghost's is GHOST_BYTES.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Literal

from ragagent.cache.chain import Chain, Item

Policy = Literal["2q", "lru"]

PROBATION_SHARE = 0.2  # of all bytes: less pays where questions never change, more where they drift
GHOST_SHARE = 0.5  # of the number of items: older ghosts say little
MIN_GHOSTS = 16
GHOST_BYTES = 150  # measured as resident memory


class Queues:
    """Items by key; they and the ghosts weigh at most `max_bytes` as soon as a call returns."""

    def __init__(self, max_bytes: int, policy: Policy = "2q") -> None:
        self._max_bytes = max_bytes
        self._has_probation = policy == "2q"
        self._items: dict[str, Item] = {}
        self._main = Chain()
        self._probation = Chain()
        # Hashes of keys: two keys of one hash cost a wrong guess, the keys themselves would cost twice the memory.
        self._ghosts: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    @property
    def bytes(self) -> int:
        return self._main.bytes + self._probation.bytes + len(self._ghosts) * GHOST_BYTES

    @property
    def ghosts(self) -> int:
        return len(self._ghosts)

    def find(self, key: str) -> Item | None:
        """Return the item of `key`, and count that as a use."""
        item = self._items.get(key)
        if item is None:
            return None
        if item.chain is self._main:
            self._main.renew(item)
        else:
            self._probation.remove(item)
            self._main.append(item)
        return item

    def look(self, key: str) -> Item | None:
        """Return the item of `key`, which changes nothing."""
        return self._items.get(key)

    def add(self, item: Item) -> int:
        """Take in the item of a key that has none; return how many had to go for it, itself perhaps among them."""
        is_proven = not self._has_probation or self._was_ghost(item.key)
        (self._main if is_proven else self._probation).append(item)
        self._items[item.key] = item
        return self._make_room()

    def adopt(self, item: Item) -> bool:
        """Take in an item that has proven itself elsewhere, as the least recently used; False: no room beside the rest.

        Its key must have no item. Hand over the hottest first.
        """
        if self.bytes + item.weight > self._max_bytes:
            return False
        self._main.prepend(item)
        self._items[item.key] = item
        return True

    def remove(self, key: str) -> Item | None:
        item = self._items.pop(key, None)
        if item is not None and item.chain is not None:
            item.chain.remove(item)
        return item

    def retire(self, key: str) -> Item | None:
        """Remove an item that is too old, or about to be replaced: if the key is put again, it was asked for again."""
        item = self.remove(key)
        if item is not None:
            self._remember(key)
        return item

    def walk(self) -> Iterator[Item]:
        """Yield the next item of each queue, in an endless round through it."""
        for queue in (self._main, self._probation):
            item = queue.walk()
            if item is not None:
                yield item

    def hottest(self) -> Iterator[Item]:
        """Yield what is most worth keeping first. Change nothing meanwhile."""
        yield from reversed(self._main)
        yield from reversed(self._probation)

    def _make_room(self) -> int:
        gone = 0
        while self.bytes > self._max_bytes:
            item = self._least()
            if item is None:
                break
            if item.chain is self._probation:
                self.retire(item.key)
            else:
                self.remove(item.key)
            gone += 1
        return gone

    def _least(self) -> Item | None:
        """Return the item that is least worth its place."""
        if self._probation.bytes > self._max_bytes * PROBATION_SHARE:
            return self._probation.oldest
        return self._main.oldest or self._probation.oldest

    def _was_ghost(self, key: str) -> bool:
        """Return whether the key is remembered, and forget it."""
        ghost = hash(key)
        if ghost not in self._ghosts:
            return False
        del self._ghosts[ghost]
        return True

    def _remember(self, key: str) -> None:
        if not self._has_probation:
            return
        ghost = hash(key)
        self._ghosts[ghost] = None
        self._ghosts.move_to_end(ghost)
        while len(self._ghosts) > max(MIN_GHOSTS, len(self) * GHOST_SHARE):
            self._ghosts.popitem(last=False)
