"""The searchers of one process: of each store the newest, opened when its manifest changes, closed when let go.

A pin costs one `stat`. What a search holds stays open under it, however many manifests come meanwhile. A thread opens
large generations beside the searches, and lets go of what nobody pins any more and the writer wants to delete.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ragagent.errors import Conflict
from ragagent.index import files, manifest
from ragagent.index.searcher import Searcher
from ragagent.index.shelf import Shelf

_FOLLOW_SECONDS = 2.0


class Searchers:
    """Up to `capacity` stores open at once; the one pinned longest ago gives way. Opens nothing before the first pin.

    An open store costs four descriptors, three more for each further generation, and one thread of Tantivy's that looks
    at a file twice a second.
    """

    def __init__(self, root: Path, *, ef_search: int, capacity: int = 256) -> None:
        self._root = root
        self._ef_search = ef_search
        self._capacity = capacity
        self._lock = threading.Lock()  # guards _shelves and _is_closed; a shelf's lock is never taken under it
        self._shelves: OrderedDict[str, Shelf] = OrderedDict()
        self._is_closed = False
        self._wake = threading.Event()
        self._follower: threading.Thread | None = None

    @contextmanager
    def pin(self, store_id: str) -> Iterator[Searcher]:
        """Give the newest searcher of the store, which stays open until the block ends. Raises Damaged."""
        searcher = self._take(store_id)
        try:
            yield searcher
        finally:
            searcher.release()

    def seq(self, store_id: str) -> int:
        """Return up to where a pin taken now would see; opens no searcher, and pushes none out."""
        with self._lock:
            shelf = self._shelves.get(store_id)
        if shelf is not None:
            return shelf.seq()
        found = manifest.read(files.store_path(self._root, store_id))
        return found[1].seq if found else 0

    def close(self) -> None:
        """Let go of every searcher; one still pinned closes with its last pin."""
        with self._lock:
            self._is_closed = True
            shelves = list(self._shelves.values())
            self._shelves.clear()
            follower = self._follower
        self._wake.set()
        if follower is not None:
            follower.join()
        for shelf in shelves:
            shelf.close()

    def _follow(self) -> None:
        while True:
            self._wake.wait(_FOLLOW_SECONDS)
            self._wake.clear()
            with self._lock:
                if self._is_closed:
                    return
                shelves = list(self._shelves.values())
            for shelf in shelves:
                shelf.follow()

    def _take(self, store_id: str) -> Searcher:
        while True:
            searcher = self._shelf(store_id).take()
            if searcher is not None:
                return searcher
            # Another thread's pins pushed this shelf out between the two calls; there is a place for a new one.

    def _shelf(self, store_id: str) -> Shelf:
        surplus: list[Shelf] = []
        with self._lock:
            if self._is_closed:
                raise Conflict("The searchers of this process are closed.")
            if self._follower is None:
                self._follower = threading.Thread(target=self._follow, name="searchers", daemon=True)
                self._follower.start()
            if (shelf := self._shelves.get(store_id)) is None:
                shelf = Shelf(files.store_path(self._root, store_id), self._ef_search, self._wake.set)
                self._shelves[store_id] = shelf
            self._shelves.move_to_end(store_id)
            while len(self._shelves) > self._capacity:
                surplus.append(self._shelves.popitem(last=False)[1])
        for one in surplus:
            one.close()
        return shelf
