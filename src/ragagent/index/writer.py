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
from pathlib import Path
from types import TracebackType
from typing import Literal, NotRequired, TypedDict, Unpack

import numpy as np

from ragagent.errors import Conflict, Invalid
from ragagent.index import delta, directory, files, generation, lexical, lock, manifest, opening, retention, tiers
from ragagent.index.compaction import Compaction
from ragagent.index.delta import Delta
from ragagent.index.files import Int64
from ragagent.index.lexical import LexicalWriter
from ragagent.index.manifest import Manifest, Part, Sums
from ragagent.index.retention import Retained
from ragagent.index.rows import Row, columns


class Options(TypedDict):
    """How a writer builds: the keys of the config section [ingest]."""

    hnsw_rows: int
    max_delta_rows: int
    vectors: NotRequired[Literal["float32", "int8"]]
    retain_bytes: NotRequired[int]


class Writer:
    """One store, open for writing. Whoever opens one holds the root's `lock.writer`."""

    def __init__(self, store: Path, current: Manifest, options: Options) -> None:
        self._store = store
        self._manifest = current
        self._options = options
        self._build: Compaction | None = None
        self._positions = opening.positions(store, current)
        self._lexical = LexicalWriter(store / lexical.NAME)
        self._is_closed = False

    @classmethod
    def open(cls, root: Path, store_id: str, model: str, dimension: int, **options: Unpack[Options]) -> Writer:
        """Open the store as its manifest says, dropping what a crash left around it; make it, when there is none.

        Raises Damaged when files are missing, short or not what was written, Conflict when they hold vectors of another
        model: an index made anew from SQLite is the way on.
        """
        store = files.store_path(root, store_id)
        found = manifest.read(store)
        current = found[1] if found else directory.create(store, model, dimension)
        if (current.store, current.model, current.dimension) != (store_id, model, dimension):
            raise Conflict(
                f"Store '{store_id}' is indexed with model '{current.model}' of {current.dimension} dimensions, "
                f"not '{model}' of {dimension}; its index must be made anew."
            )
        opening.check(store, current)
        writer = cls(store, current, options)
        with writer._changing():
            writer._sweep()
        return writer

    @property
    def seq(self) -> int:
        return self._manifest.seq

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def needs_compaction(self) -> bool:
        return tiers.needs_merge(*self._positions.tiers, self._options["max_delta_rows"])

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
        rows, vectors = columns(latest, self._manifest.dimension)
        gone = self._standing([*dead, *(row.chunk_id for row in latest)])
        positions = np.fromiter(gone.values(), np.int64, len(gone))
        if seq == self.seq and not (latest or gone or forget):
            return
        with self._changing():
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
        first = tiers.first_merged(*self._positions.tiers, self._options["hnsw_rows"])
        with files.reading(f"The index of store '{self._manifest.store}'"):
            rows = Delta.open(self._store, self._manifest)
        self._build = Compaction(
            self._store,
            number,
            opening.generations(self._store, self._manifest),
            first,
            rows,
            self._positions.live(),
            hnsw_rows=self._options["hnsw_rows"],
            is_int8=self._options.get("vectors") == "int8",
        )
        return self._build

    def finish_compaction(self, build: Compaction) -> None:
        """Publish the generation that `build.run` wrote, with what changed since `begin_compaction` as its delta.

        Closes the build. Raises Conflict when it is not this writer's, or has not run; anything else closes the writer.
        """
        self._refuse_closed()
        if build is not self._build or build.is_closed or not build.is_built:
            raise Conflict(f"Generation {build.number} of store '{self._manifest.store}' is not built.")
        with build, self._changing():
            rows, vectors, dead = build.missed(self._manifest, self._positions.live())
            files.rename(build.path, generation.generation_path(self._store, build.number))
            delta.create(self._store, build.number, rows, vectors, dead)
            if self._options.get("retain_bytes"):
                retention.keep(self._store, self._manifest)
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
            self._positions = opening.positions(self._store, self._manifest)

    def compact(self) -> None:
        """Build the next generation and publish it, in one go."""
        with self.begin_compaction() as build:
            build.run()
            self.finish_compaction(build)

    def prune(self) -> list[int]:
        """Delete the generations that no manifest names, current or retained, nor any reader holds.

        Returns their numbers.
        """
        self._refuse_closed()
        with files.writing(f"The index of store '{self._manifest.store}'"):
            needed = retention.directories(self._store, self._manifest)
            needed |= retention.trim(self._store, self._manifest, self._options.get("retain_bytes", 0))
            for path in set(self._store.glob("*.delta")) - needed:
                # Readers have its rows mapped. One that comes too late finds a newer manifest, and reads that.
                files.remove(path)
            numbers = generation.numbers(self._store)
            spent = [one for one in numbers if generation.generation_path(self._store, one) not in needed]
            return [number for number in spent if self._delete(number)]

    def retained(self) -> list[Retained]:
        """Return the superseded states that `roll_back` could show again, newest first."""
        return [described for _, described in retention.retained(self._store, self._manifest)]

    def roll_back(self, number: int, live_ids: Int64) -> None:
        """Show the retained state of generation `number` again, as it was at its seq; newer states are dropped.

        Of its rows only those of the chunks `live_ids` count: what was erased since has no tombstone any more. The
        lexical leg stays as it is, newer than the manifest as it may always be. Who calls this then publishes what is
        newer from SQLite, and each row replaces itself there. Reads everything before it changes anything.

        Raises Conflict when nothing is retained under that number, or during a build; Damaged when what is retained is
        not what was written. Then nothing has changed; any other failure closes the writer.
        """
        self._refuse_closed()
        kept = retention.read(self._store, number)
        if kept is None or number not in {one.number for one in self.retained()}:
            raise Conflict(f"Store '{self._manifest.store}' retains no generation {number}.")
        if self._build is not None and not self._build.is_closed:
            raise Conflict(f"Store '{self._manifest.store}' is building generation {self._build.number}.")
        for part in kept.parts:
            generation.check(self._store, part.number, vectors=True)
        positions = opening.positions(self._store, kept)
        dead = positions.others(live_ids)
        nothing = np.empty((0, 2), np.int64), np.empty((0, kept.dimension), np.float32)
        with self._changing():
            delta.append(self._store, kept, *nothing, dead)
            self._manifest = manifest.publish(
                self._store,
                dataclasses.replace(
                    kept,
                    dead_rows=kept.dead_rows + len(dead),
                    sums=delta.extended(kept.sums, *nothing, dead),
                    commit=self._manifest.commit,
                ),
            )
            self._positions = opening.positions(self._store, self._manifest)

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
    def _changing(self) -> Iterator[None]:
        """Close the writer when a step fails: what it remembers may no longer be what stands on disk."""
        try:
            with files.writing(f"The index of store '{self._manifest.store}'"):
                yield
        except BaseException:
            self.close()
            raise

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise Conflict(f"The writer of store '{self._manifest.store}' is closed; it must be opened again.")
