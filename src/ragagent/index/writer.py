"""The writer: the one hand that changes a store's index. It publishes rows, builds generations, and recovers.

The order of a publish is bolt's: data, fsync, then the one small write that makes it count.

    1  delta rows and dead positions, each fsynced      a crash leaves a tail that no manifest counts
    2  Tantivy's commit, durable by itself              a crash leaves a lexical leg newer than the manifest
    3  MANIFEST.tmp, fsync, rename, directory fsync     a crash before the rename leaves the old state, after it the new

After a crash at 1 or 2 the manifest's seq is the old one, so SQLite's rows since then are published once more: over
the tail, and each deleted from Tantivy before it is added. There is one way back from any failure, a reopening: a
writer whose publish raised has closed itself.

Not safe for threads: one thread owns a writer. Only `Compaction.run` belongs elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np

from ragagent.errors import Conflict, Damaged, Invalid
from ragagent.index import delta, directory, files, generation, lexical, lock, manifest, tiers
from ragagent.index.compaction import Compaction
from ragagent.index.delta import Delta
from ragagent.index.dense import unit_vectors
from ragagent.index.files import Float32, Int64
from ragagent.index.generation import Generation, Vanished
from ragagent.index.lexical import LexicalWriter
from ragagent.index.manifest import Manifest, Part, Sums
from ragagent.index.positions import Positions

Kind = Literal["float32", "int8"]


@dataclass(frozen=True, slots=True)
class Row:
    """One chunk for the index. `vector` (dimension,) is of unit length; `tokens` are joined by single spaces."""

    chunk_id: int
    document_id: int
    vector: Float32
    tokens: str


class Writer:
    """One store, open for writing. Whoever opens one holds the root's `lock.writer`."""

    def __init__(self, store: Path, current: Manifest, hnsw_rows: int, max_delta_rows: int, is_int8: bool) -> None:
        self._store = store
        self._manifest = current
        self._hnsw_rows = hnsw_rows
        self._max_delta_rows = max_delta_rows
        self._is_int8 = is_int8
        self._build: Compaction | None = None
        self._positions = _positions(store, current)
        self._lexical = LexicalWriter(store / lexical.NAME)
        self._is_closed = False

    @classmethod
    def open(
        cls,
        root: Path,
        store_id: str,
        model: str,
        dimension: int,
        *,
        hnsw_rows: int,
        max_delta_rows: int,
        vectors: Kind = "float32",
    ) -> Writer:
        """Open the store as its manifest says, dropping what a crash left around it; make it, when there is none.

        Raises Damaged when files are missing, short or not what was written (`recreate` is the way on), Conflict when
        they hold vectors of another model.
        """
        store = files.store_path(root, store_id)
        found = manifest.read(store)
        current = found[1] if found else directory.create(store, model, dimension)
        if (current.store, current.model, current.dimension) != (store_id, model, dimension):
            raise Conflict(
                f"Store '{store_id}' is indexed with model '{current.model}' of {current.dimension} dimensions, "
                f"not '{model}' of {dimension}; its index must be made anew."
            )
        with files.reading(f"The index of store '{store_id}'"):
            delta.cut(store, current)
        for part in current.parts:
            generation.check(store, part.number, vectors=False)
        if lexical.commit(store / lexical.NAME) < current.commit:
            raise Damaged(f"The lexical index of store '{store_id}' is older than its manifest.")
        writer = cls(store, current, hnsw_rows, max_delta_rows, vectors == "int8")
        with writer._or_close(), files.writing(f"The index of store '{store_id}'"):
            writer._sweep()
        return writer

    @classmethod
    def recreate(
        cls,
        root: Path,
        store_id: str,
        model: str,
        dimension: int,
        *,
        hnsw_rows: int,
        max_delta_rows: int,
        vectors: Kind = "float32",
    ) -> Writer:
        """Throw the store's index away and open an empty one at seq 0, for SQLite to be replayed into."""
        directory.remove(root, store_id)
        return cls.open(
            root, store_id, model, dimension, hnsw_rows=hnsw_rows, max_delta_rows=max_delta_rows, vectors=vectors
        )

    @property
    def seq(self) -> int:
        return self._manifest.seq

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def needs_compaction(self) -> bool:
        return tiers.needs_merge(*self._positions.tiers, self._max_delta_rows)

    def publish(
        self, seq: int, added: Sequence[Row] = (), dead: Sequence[int] = (), forget: Sequence[int] = ()
    ) -> None:
        """Make all changes up to `seq` visible: rows added, chunks dead (dense leg), chunks forgotten (lexical leg).

        A chunk that is added again replaces itself; a chunk that nobody knows is no error. Raises Invalid for a bad
        vector or a seq that goes back, having changed nothing; anything else closes the writer.
        """
        self._refuse_closed()
        if seq < self.seq:
            raise Invalid(f"Store '{self._manifest.store}' is at seq {self.seq}; it cannot be published at {seq}.")
        latest = list({row.chunk_id: row for row in added}.values())
        rows, vectors = _columns(latest, self._manifest.dimension)
        gone = self._standing([*dead, *(row.chunk_id for row in latest)])
        positions = np.fromiter(gone.values(), np.int64, len(gone))
        if seq == self.seq and not (latest or gone or forget):
            return
        with self._or_close(), files.writing(f"The index of store '{self._manifest.store}'"):
            delta.append(self._store, self._manifest, rows, vectors, positions)
            commit = self._manifest.commit
            if latest or forget:
                commit = self._lexical.replace(((row.chunk_id, row.document_id, row.tokens) for row in latest), forget)
            self._manifest = manifest.publish(
                self._store,
                dataclasses.replace(
                    self._manifest,
                    seq=seq,
                    delta_rows=self._manifest.delta_rows + len(rows),
                    dead_rows=self._manifest.dead_rows + len(positions),
                    sums=delta.extended(self._manifest.sums, rows, vectors, positions),
                    commit=commit,
                ),
            )
            self._positions.kill(list(gone), positions)
            self._positions.place(rows[:, 0].tolist())

    def begin_compaction(self) -> Compaction:
        """Return a build of the next generation from what is alive now in those that it replaces, and the delta.

        Cheap; publishes may go on after it.

        Raises Conflict while an earlier build is open.
        """
        self._refuse_closed()
        if self._build is not None and not self._build.is_closed:
            raise Conflict(f"Store '{self._manifest.store}' is building generation {self._build.number} already.")
        number = max(generation.numbers(self._store)) + 1
        first = tiers.first_merged(*self._positions.tiers, self._hnsw_rows)
        with files.reading(f"The index of store '{self._manifest.store}'"):
            rows = Delta.open(self._store, self._manifest)
        self._build = Compaction(
            self._store,
            number,
            self._manifest.parts[:first],
            _generations(self._store, self._manifest, first),
            rows,
            self._positions.live(),
            hnsw_rows=self._hnsw_rows,
            is_int8=self._is_int8,
        )
        return self._build

    def finish_compaction(self, build: Compaction) -> None:
        """Publish the generation that `build.run` wrote, with what changed since `begin_compaction` as its delta.

        Closes the build. Raises Conflict when it is not this writer's, or has not run; anything else closes the writer.
        """
        self._refuse_closed()
        if build is not self._build or build.is_closed or not build.is_built:
            raise Conflict(f"Generation {build.number} of store '{self._manifest.store}' is not built.")
        with build, self._or_close(), files.writing(f"The index of store '{self._manifest.store}'"):
            rows, vectors, dead = self._since(build)
            files.rename(build.path, generation.generation_path(self._store, build.number))
            delta.create(self._store, build.number, rows, vectors, dead)
            # The names of both directories, before the manifest that needs them. A crash up to here leaves orphans,
            # which the next open removes.
            files.sync(self._store)
            self._manifest = manifest.publish(
                self._store,
                dataclasses.replace(
                    self._manifest,
                    parts=(*build.kept, Part(build.number, len(build.rows))),
                    delta_rows=len(rows),
                    dead_rows=len(dead),
                    sums=delta.extended(Sums(), rows, vectors, dead),
                ),
            )
            self._positions = _positions(self._store, self._manifest)

    def compact(self) -> None:
        """Build the next generation and publish it, in one go."""
        with self.begin_compaction() as build:
            build.run()
            self.finish_compaction(build)

    def prune(self) -> list[int]:
        """Delete the generations that neither the manifest names nor any reader holds; return their numbers."""
        self._refuse_closed()
        spent = set(generation.numbers(self._store)) - {part.number for part in self._manifest.parts}
        current = delta.delta_path(self._store, self._manifest.generation)
        with files.writing(f"The index of store '{self._manifest.store}'"):
            for path in self._store.glob("*.delta"):
                # Readers have its rows mapped. One that comes too late finds a newer manifest, and reads that.
                if path != current:
                    files.remove(path)
            return [number for number in sorted(spent) if self._delete(number)]

    def close(self) -> None:
        """Let go of the store; a build under way is cancelled. Its thread must end before the store is opened again."""
        self._is_closed = True
        if self._build is not None:
            self._build.cancel()
        self._lexical.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _standing(self, chunk_ids: list[int]) -> dict[int, int]:
        """Return those of the chunks that are alive, with their positions."""
        found = ((chunk_id, self._positions.find(chunk_id)) for chunk_id in chunk_ids)
        return {chunk_id: position for chunk_id, position in found if position is not None}

    def _since(self, build: Compaction) -> tuple[Int64, Float32, Int64]:
        """Return what the build missed: rows that came, their vectors, and what is dead by the new positions."""
        current = Delta.open(self._store, self._manifest)
        is_alive = np.zeros(self._manifest.positions, np.bool_)
        is_alive[self._positions.live()] = True
        came = np.flatnonzero(is_alive[self._manifest.generation_rows + build.delta_rows :]) + build.delta_rows
        kept = sum(part.rows for part in build.kept)
        dead = np.concatenate((np.flatnonzero(~is_alive[:kept]), kept + np.flatnonzero(~is_alive[build.origins])))
        return current.rows[came], current.vectors[came], dead

    def _delete(self, number: int) -> bool:
        """Delete one generation, if its lock can be had at once."""
        path = generation.lock_path(self._store, number)
        held = lock.exclusive(path)
        if held is None and path.exists():
            return False
        files.remove(generation.generation_path(self._store, number))
        if held is not None:
            held.close()
        return True

    def _sweep(self) -> None:
        """Remove what a crash left: unfinished files, generations and deltas that no manifest names."""
        for path in self._store.glob("*.tmp"):
            files.remove(path)
        self.prune()

    @contextmanager
    def _or_close(self) -> Iterator[None]:
        """Close the writer when a step fails: what it remembers may no longer be what stands on disk."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise Conflict(f"The writer of store '{self._manifest.store}' is closed; it must be opened again.")


def _positions(store: Path, current: Manifest) -> Positions:
    """Read where every chunk stands. Opens all that a reader would, so that what is damaged is found here first."""
    with files.reading(f"The index of store '{store.name}'"):
        newer = Delta.open(store, current)
    opened = _generations(store, current, 0)
    try:
        return Positions([part.rows[:, 0] for part in opened], newer.rows[:, 0], newer.dead)
    finally:
        for part in opened:
            part.release()


def _generations(store: Path, current: Manifest, first: int) -> list[Generation]:
    """Open the manifest's generations from place `first` on, each held once."""
    opened: list[Generation] = []
    try:
        for part in current.parts[first:]:
            opened.append(Generation.open(store, part, current.dimension))
    except BaseException as exc:
        for one in opened:
            one.release()
        if isinstance(exc, Vanished):
            raise Damaged(f"Store '{store.name}' lacks a generation that its manifest names.") from None
        raise
    return opened


def _columns(rows: Sequence[Row], dimension: int) -> tuple[Int64, Float32]:
    """Return the rows' ids (n, 2) and their vectors (n, dimension). Raises Invalid for a bad vector."""
    if not rows:
        return np.empty((0, 2), np.int64), np.empty((0, dimension), np.float32)
    if any(row.vector.shape != (dimension,) for row in rows):
        shape = next(row.vector.shape for row in rows if row.vector.shape != (dimension,))
        raise Invalid(f"A vector has shape {shape}; this store's vectors have {dimension} values.")
    ids = np.array([(row.chunk_id, row.document_id) for row in rows], np.int64)
    return ids, unit_vectors(np.stack([row.vector for row in rows]), dimension)
