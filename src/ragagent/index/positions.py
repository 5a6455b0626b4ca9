"""Where each live chunk stands: what the writer must know to mark a row dead by its chunk id."""

from __future__ import annotations

import numpy as np

from ragagent.index.files import Int64


class Positions:
    """chunk id -> position, for live chunks only: sorted arrays for the generation, a dict for the delta's few."""

    def __init__(self, generation_ids: Int64, delta_ids: Int64, dead: Int64) -> None:
        """Take the ids in the order of their positions, and the positions that are dead."""
        self._order = np.argsort(generation_ids, kind="stable")
        self._sorted_ids = generation_ids[self._order]
        self._is_alive = np.ones(len(generation_ids), np.bool_)
        self._is_alive[dead[dead < len(generation_ids)]] = False
        gone = set(dead.tolist())
        positions = range(len(generation_ids), len(generation_ids) + len(delta_ids))
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

    def place(self, chunk_ids: list[int], first: int) -> None:
        """Put chunks into the delta, one behind the other from position `first`."""
        self._delta.update(zip(chunk_ids, range(first, first + len(chunk_ids)), strict=True))

    def live(self) -> Int64:
        """Return the positions of all live chunks, ascending."""
        in_delta = np.sort(np.fromiter(self._delta.values(), np.int64, len(self._delta)))
        return np.concatenate((np.flatnonzero(self._is_alive), in_delta))
