"""The searchers of one process: of each store the newest, opened when its manifest changes, closed when let go.

A pin costs one `stat`. What a search holds stays open under it, however many manifests come meanwhile. A thread looks
at the stores that nobody pins any more, so that they do not keep a generation on disk that the writer wants to delete.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ragagent.errors import Conflict, Damaged, RagagentError
from ragagent.index import files, manifest
from ragagent.index.generation import Vanished
from ragagent.index.manifest import Manifest, Stamp
from ragagent.index.searcher import EmptySearcher, Searcher

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
        self._shelves: OrderedDict[str, _Shelf] = OrderedDict()
        self._is_closed = False
        self._closing = threading.Event()
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
        """Return up to where a pin taken now would see; opens no searcher."""
        return self._shelf(store_id).seq()

    def drop_outdated(self) -> None:
        """Let go of every searcher whose generation has been replaced; the next pin opens the newest.

        Pins do the same for the stores that they name. Without this, a process that nobody asks would keep what is
        over mapped, and the disk full of it.
        """
        with self._lock:
            shelves = list(self._shelves.values())
        for shelf in shelves:
            shelf.drop_outdated()

    def close(self) -> None:
        """Let go of every searcher; one still pinned closes with its last pin."""
        with self._lock:
            self._is_closed = True
            shelves = list(self._shelves.values())
            self._shelves.clear()
            follower = self._follower
        self._closing.set()
        if follower is not None:
            follower.join()
        for shelf in shelves:
            shelf.close()

    def _follow(self) -> None:
        while not self._closing.wait(_FOLLOW_SECONDS):
            with self._lock:
                shelves = list(self._shelves.values())
            for shelf in shelves:
                shelf.follow()

    def _take(self, store_id: str) -> Searcher:
        while True:
            searcher = self._shelf(store_id).take()
            if searcher is not None:
                return searcher
            # Another thread's pins pushed this shelf out between the two calls; there is a place for a new one.

    def _shelf(self, store_id: str) -> _Shelf:
        surplus: list[_Shelf] = []
        with self._lock:
            if self._is_closed:
                raise Conflict("The searchers of this process are closed.")
            if self._follower is None:
                self._follower = threading.Thread(target=self._follow, name="searchers", daemon=True)
                self._follower.start()
            if (shelf := self._shelves.get(store_id)) is None:
                shelf = _Shelf(files.store_path(self._root, store_id), self._ef_search)
                self._shelves[store_id] = shelf
            self._shelves.move_to_end(store_id)
            while len(self._shelves) > self._capacity:
                surplus.append(self._shelves.popitem(last=False)[1])
        for one in surplus:
            one.close()
        return shelf


class _Shelf:
    """One store's newest searcher. Its own hold on it is one hold like any pin's."""

    def __init__(self, path: Path, ef_search: int) -> None:
        self._path = path
        self._ef_search = ef_search
        # Guards all below. Opening happens under it: who pins the same store meanwhile wants the new searcher too.
        self._lock = threading.Lock()
        self._searcher: Searcher | None = None
        self._shown: Stamp | None = None  # the stamp of the manifest that _searcher shows
        self._read: tuple[Stamp, Manifest] | None = None  # the last manifest read, and its stamp
        self._is_closed = False

    def take(self) -> Searcher | None:
        """Return the newest searcher, held once for the caller; None when the shelf was closed meanwhile."""
        with self._lock:
            if self._is_closed:
                return None
            searcher = self._newest()
            searcher.hold()
            return searcher

    def follow(self) -> None:
        """Let go of what a newer manifest has replaced, as a pin would. Opens nothing that was not open."""
        with self._lock:
            if self._searcher is None or self._is_closed:
                return
            try:
                self._newest()
            except RagagentError:  # The next pin raises it to somebody who asked.
                self._searcher.release()
                self._searcher = None

    def seq(self) -> int:
        with self._lock:
            found = self._manifest()
            return found[1].seq if found else 0

    def drop_outdated(self) -> None:
        with self._lock:
            if self._searcher is None or manifest.stamp(self._path) == self._shown:
                return
            try:
                found = self._manifest()
            except Damaged:
                found = None  # Told to who asks.
            # One with more rows beside the same generation goes on from what is open.
            if found is None or found[1].generation != self._searcher.generation:
                self._searcher.release()
                self._searcher = self._shown = None

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._searcher is not None:
                self._searcher.release()
                self._searcher = None

    def _newest(self) -> Searcher:
        while True:
            found = self._manifest()
            stamp = found[0] if found else None
            if self._searcher is not None and stamp == self._shown:
                return self._searcher
            try:
                searcher = self._open(found[1]) if found else EmptySearcher()
            except (Vanished, Damaged) as exc:
                # Under a manifest that has been replaced, what we saw was only old. Under one that stands, it is true.
                if manifest.stamp(self._path) != stamp:
                    continue
                if isinstance(exc, Damaged):
                    raise
                raise Damaged(f"Store '{self._path.name}' lacks a generation that its manifest names.") from exc
            if self._searcher is not None:
                self._searcher.release()
            self._searcher, self._shown = searcher, stamp

    def _open(self, newest: Manifest) -> Searcher:
        return Searcher.open(self._path, newest, self._ef_search, previous=self._searcher)

    def _manifest(self) -> tuple[Stamp, Manifest] | None:
        if self._read is None or manifest.stamp(self._path) != self._read[0]:
            self._read = manifest.read(self._path)
        return self._read
