"""Which keys of L1 were read from which store, and what has been erased since.

A value may be kept for as long as nothing that it was read from has been erased. Two numbers decide that exactly, and
both stand in its key: `written`, the store's last write when it was asked for, and `shown`, the write up to which the
index showed then. A delete at write S dooms what was read before S. A newer version, of write S, dooms what was read
while the index did not show S yet, since until then readers see the older one.

By store, not by document: a text can speak of a document that it does not cite, and whatever the store's last delete
left behind is out of reach anyway, since the store's keys have moved on. Nothing is lost by dropping it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ragagent.types import Erasure

MAX_STORES = 100_000  # whose erasures are remembered, about 20 MB; the least recently erased go first
SPARE = 1024


class Tag(NamedTuple):
    """One store that a value was read from: the store's id, its last write, and the write up to which it was shown."""

    store_id: str
    written: int
    shown: int


class Tags:
    """`is_held(key)` says whether L1 still has a key. A sweep forgets what it has pushed out."""

    def __init__(self, is_held: Callable[[str], bool]) -> None:
        self._is_held = is_held
        self._filed: dict[str, dict[str, Tag]] = {}  # store: key: tag
        self._count = 0
        self._sweep_at = SPARE
        self._erased: OrderedDict[str, tuple[int, int]] = OrderedDict()  # store: (removed, replaced)

    def __len__(self) -> int:
        return self._count

    def file(self, name: str, tags: Iterable[Tag]) -> None:
        """Remember what the key `name` was read from."""
        for tag in tags:
            of_store = self._filed.setdefault(tag.store_id, {})
            self._count += name not in of_store
            of_store[name] = tag
        if self._count > self._sweep_at:
            self._sweep()

    def by_key(self) -> dict[str, list[Tag]]:
        """Return the tags of all keys that have some."""
        found: dict[str, list[Tag]] = {}
        for of_store in self._filed.values():
            for name, tag in of_store.items():
                found.setdefault(name, []).append(tag)
        return found

    def is_erased(self, tags: Iterable[Tag]) -> bool:
        """Return whether a value with these tags may be kept no more."""
        return any(_is_doomed(tag, self._erased.get(tag.store_id, (0, 0))) for tag in tags)

    def erase(self, erasure: Erasure) -> list[str]:
        """Note what was erased; return the keys of L1 that have to go, which are forgotten here."""
        removed, replaced = self._erased.pop(erasure.store_id, (0, 0))
        limits = max(removed, erasure.removed), max(replaced, erasure.replaced)
        self._erased[erasure.store_id] = limits
        while len(self._erased) > MAX_STORES:
            self._erased.popitem(last=False)
        of_store = self._filed.get(erasure.store_id, {})
        doomed = [name for name, tag in of_store.items() if _is_doomed(tag, limits)]
        for name in doomed:
            del of_store[name]
        self._count -= len(doomed)
        if not of_store:
            self._filed.pop(erasure.store_id, None)
        return doomed

    def _sweep(self) -> None:
        """Forget the keys that are not held. Each time that as many came as had stayed: a constant effort a key."""
        held = {
            store_id: {name: tag for name, tag in of_store.items() if self._is_held(name)}
            for store_id, of_store in self._filed.items()
        }
        self._filed = {store_id: of_store for store_id, of_store in held.items() if of_store}
        self._count = sum(map(len, self._filed.values()))
        self._sweep_at = 2 * self._count + SPARE


def _is_doomed(tag: Tag, limits: tuple[int, int]) -> bool:
    removed, replaced = limits
    return tag.written < removed or tag.shown < replaced
