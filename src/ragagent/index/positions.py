"""Where each live chunk stands: what the writer must know to mark a row dead by its chunk id."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragagent.index.files import Int64
from ragagent.index.tiers import Tier


class Positions:
    """chunk id -> position, for live chunks only: sorted arrays for the generations, a dict for the delta's few.

    A chunk may stand in several generations, where it was replaced; it lives in one place at most.
    """

    def __init__(self, generation_ids: Sequence[Int64], delta_ids: Int64, dead: Int64) -> None:
        """Take the ids in the order of their positions, generation by generation, and the positions that are dead."""
        ids = np.concatenate([*generation_ids, np.empty(0, np.int64)])
        self._ends = np.cumsum([len(part) for part in generation_ids]).tolist()
        self._is_alive = np.ones(len(ids), np.bool_)
        self._is_alive[dead[dead < len(ids)]] = False
        living = np.flatnonzero(self._is_alive)
        self._order = living[np.argsort(ids[living], kind="stable")]
        self._sorted_ids = ids[self._order]
        gone = set(dead.tolist())
        positions = range(len(ids), len(ids) + len(delta_ids))
        self._delta_rows = len(delta_ids)
        self._delta = {
            chunk_id: position
            for chunk_id, position in zip(delta_ids.tolist(), positions, strict=True)
            if position not in gone
        }

    def find(self, chunk_id: int) -> int | None:
        if (position := self._delta.get(chunk_id)) is not None:
            return position
        place = int(np.searchsorted(self._sorted_ids, chunk_id))
        if place == len(self._sorted_ids) or self._sorted_ids[place] != chunk_id:
            return None
        position = int(self._order[place])
        return position if self._is_alive[position] else None

    def kill(self, chunk_ids: list[int], positions: Int64) -> None:
        """Forget chunks that `find` gave at `positions`."""
        for chunk_id in chunk_ids:
            self._delta.pop(chunk_id, None)
        self._is_alive[positions[positions < len(self._is_alive)]] = False

    def place(self, chunk_ids: list[int]) -> None:
        """Put chunks into the delta, one behind the other, behind all that stands there."""
        first = len(self._is_alive) + self._delta_rows
        self._delta_rows += len(chunk_ids)
        self._delta.update(zip(chunk_ids, range(first, first + len(chunk_ids)), strict=True))

    def live(self) -> Int64:
        """Return the positions of all live chunks, ascending."""
        in_delta = np.sort(np.fromiter(self._delta.values(), np.int64, len(self._delta)))
        return np.concatenate((np.flatnonzero(self._is_alive), in_delta))

    def others(self, chunk_ids: Int64) -> Int64:
        """Return the positions of the live chunks that are not among `chunk_ids`, ascending."""
        in_delta = np.fromiter(self._delta, np.int64, len(self._delta))
        positions = np.fromiter(self._delta.values(), np.int64, len(self._delta))
        alive = self._is_alive[self._order]
        known, places = self._sorted_ids[alive], self._order[alive]
        missing = places[~np.isin(known, chunk_ids)], positions[~np.isin(in_delta, chunk_ids)]
        return np.sort(np.concatenate(missing))

    @property
    def tiers(self) -> tuple[list[Tier], Tier]:
        """Return the generations, and the delta."""
        starts = [0, *self._ends][:-1]
        living = [int(np.count_nonzero(self._is_alive[a:b])) for a, b in zip(starts, self._ends, strict=True)]
        sizes = [end - start for start, end in zip(starts, self._ends, strict=True)]
        generations = [Tier(size, size - alive) for size, alive in zip(sizes, living, strict=True)]
        return generations, Tier(self._delta_rows, self._delta_rows - len(self._delta))
