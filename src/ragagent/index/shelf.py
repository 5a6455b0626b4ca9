"""One store's newest searcher, for all threads of a process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from ragagent.errors import Damaged, RagagentError
from ragagent.index import manifest
from ragagent.index.generation import Vanished
from ragagent.index.manifest import Manifest, Stamp
from ragagent.index.searcher import EmptySearcher, Searcher

# Generations with more rows, taken together, are opened beside the searches: 2 to 10 ms for a million rows that lie in
# memory, and as long as the disk takes for those that do not.
_AT_ONCE_ROWS = 50_000


class Shelf:
    """Its own hold on the searcher is one hold like any pin's. `wake` has someone call `follow` soon."""

    def __init__(self, path: Path, ef_search: int, wake: Callable[[], None]) -> None:
        self._path = path
        self._ef_search = ef_search
        self._wake = wake
        # Guards all below. A pin opens under it: who pins the same store meanwhile wants the new searcher too.
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
        """Go over to what a newer manifest names, beside the searches. Opens nothing where nothing was open."""
        with self._lock:
            if self._searcher is None or self._is_closed:
                return
            try:
                found = self._manifest()
            except RagagentError:
                self._put(None, None)  # The next pin raises it to somebody who asked.
                return
            if found is None:
                self._put(None, None)
                return
            if found[0] == self._shown:
                return
            previous = self._searcher
            previous.hold()
        try:
            opened = Searcher.open(self._path, found[1], self._ef_search, previous)
        except (Vanished, RagagentError):
            opened = None
        finally:
            previous.release()
        with self._lock:
            is_due = not self._is_closed and self._searcher is previous and manifest.stamp(self._path) == found[0]
            if is_due:
                self._put(opened, found[0])
            elif opened is not None:
                opened.release()

    def seq(self) -> int:
        with self._lock:
            found = self._manifest()
            return found[1].seq if found else 0

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._put(None, None)

    def _put(self, searcher: Searcher | None, shown: Stamp | None) -> None:
        if self._searcher is not None:
            self._searcher.release()
        self._searcher, self._shown = searcher, shown

    def _newest(self) -> Searcher:
        while True:
            found = self._manifest()
            stamp = found[0] if found else None
            if self._searcher is not None:
                if stamp == self._shown:
                    return self._searcher
                if found is not None and self._will_do(self._searcher, found[1]):
                    self._wake()
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
            self._put(searcher, stamp)

    def _will_do(self, searcher: Searcher, newest: Manifest) -> bool:
        """Return whether the searcher shows the same writes as `newest`, which would take long to open.

        A compaction changes where rows stand, not what there is: until the new generation is open the old one does.
        """
        if searcher.seq != newest.seq or isinstance(searcher, EmptySearcher):
            return False
        return searcher.rows_to_open(newest) > _AT_ONCE_ROWS

    def _open(self, newest: Manifest) -> Searcher:
        return Searcher.open(self._path, newest, self._ef_search, previous=self._searcher)

    def _manifest(self) -> tuple[Stamp, Manifest] | None:
        if self._read is None or manifest.stamp(self._path) != self._read[0]:
            self._read = manifest.read(self._path)
        return self._read
