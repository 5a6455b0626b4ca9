"""What filters let through, remembered: of a store and a filter the sorted array of document ids.

An array is brought up to date each time it is asked for, by testing what was written or got other attributes since, so
it is never stale, whichever process wrote; while nothing changes in it, it is the very same object. Ids are never
reused, so what was erased may stay in it: no chunk of it is left to be found.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict

import numpy as np

from ragagent.index.files import Int64
from ragagent.store import attributes
from ragagent.store.database import Database, Transaction, last_seq
from ragagent.types import Filter

# Changes are tested one by one for as long as the whole would take to look up, and no longer.
TEST_SECONDS = 3e-6  # of one change
TEST_ROWS = (100, 100_000)  # at least, at most
ENTRY_BYTES = 1_024  # what an entry costs beside its array

_Key = tuple[str, bytes]


class Sieve:
    """Arrays of up to `max_bytes` together, the one used longest ago first to go. Safe for threads."""

    def __init__(self, database: Database, max_bytes: int) -> None:
        self._database = database
        self._max_bytes = max_bytes
        self._lock = threading.Lock()  # guards _entries and _bytes; an entry's own lock is never taken under it
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._bytes = 0

    def admitted(self, store_id: str, tree: Filter) -> Int64:
        """Return the ids of the documents that the filter lets through, ascending, read-only.

        As of a moment after the call. Ids of erased documents may be among them.
        """
        key = _key(store_id, tree)
        entry = self._take(key)
        with entry.lock:  # Who wants the same meanwhile waits for it, and does not look it up as well.
            ids = entry.bring_up(self._database, store_id, tree)
        self._weigh(key, entry, ENTRY_BYTES + ids.nbytes)
        return ids

    def is_known(self, store_id: str, tree: Filter) -> bool:
        """Return whether the filter was asked about before, and is remembered; it is from here on."""
        key = _key(store_id, tree)
        with self._lock:
            if key in self._entries:
                return True
        self._weigh(key, self._take(key), ENTRY_BYTES)
        return False

    def _take(self, key: _Key) -> _Entry:
        with self._lock:
            if (entry := self._entries.get(key)) is None:
                entry = self._entries[key] = _Entry()
            self._entries.move_to_end(key)
            return entry

    def _weigh(self, key: _Key, entry: _Entry, weight: int) -> None:
        with self._lock:
            if self._entries.get(key) is not entry:
                return  # It was pushed out meanwhile.
            self._bytes += weight - entry.weight
            entry.weight = weight
            if weight > self._max_bytes:  # The others need not go for what cannot stay.
                self._drop(key)
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._entries)))

    def _drop(self, key: _Key) -> None:
        self._bytes -= self._entries.pop(key).weight


class _Entry:
    """One array. `bring_up` is called under `lock`; `weight` is guarded by the sieve's."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.weight = 0
        self._ids: Int64 | None = None
        self._seq = 0  # up to which write the array is true
        self._whole = 0  # how long it was when it was last looked up as a whole
        self._limit = 0  # how many changes can be tested in the time that this took

    def bring_up(self, database: Database, store_id: str, tree: Filter) -> Int64:
        with database.read() as tx:  # Begun under the lock: never an older moment than the array's.
            seq = last_seq(tx)
            if self._ids is not None and seq == self._seq:
                return self._ids
            # Whatever has come since may be erased by now: when that could be half of it, all of it is shed.
            if self._ids is None or len(self._ids) > 2 * self._whole + TEST_ROWS[0]:
                changes = None
            else:
                changes = attributes.changed(tx, store_id, tree, self._seq, self._limit)
            if self._ids is None or changes is None:
                self._ids = self._look_up(tx, store_id, tree)
            else:
                self._ids = _changed(self._ids, *changes)
            self._seq = seq
        return self._ids

    def _look_up(self, tx: Transaction, store_id: str, tree: Filter) -> Int64:
        started = time.perf_counter()
        ids = _frozen(attributes.matching(tx, store_id, tree))
        fewest, most = TEST_ROWS
        self._limit = min(max(int((time.perf_counter() - started) / TEST_SECONDS), fewest), most)
        self._whole = len(ids)
        return ids


def _key(store_id: str, tree: Filter) -> _Key:
    """Return what tells filters apart. By their text: to Python, true equals 1, and so would two filters."""
    return store_id, hashlib.sha256(repr(tree).encode()).digest()


def _changed(ids: Int64, tested: Int64, admitted: Int64) -> Int64:
    """Return the array without those tested and with those admitted; the same object where that is no change."""
    known = tested[np.isin(tested, ids, assume_unique=True)]
    if np.array_equal(known, admitted):
        return ids
    kept = ids[np.isin(ids, tested, assume_unique=True, invert=True)]
    return _frozen(np.sort(np.concatenate((kept, admitted)), kind="stable"))


def _frozen(ids: Int64) -> Int64:
    ids.flags.writeable = False
    return ids
