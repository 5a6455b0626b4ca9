"""What a writer opens of a store: its generations, where every chunk stands, and whether it is all what was written."""

from __future__ import annotations

from pathlib import Path

from ragagent.errors import Damaged
from ragagent.index import delta, files, generation, lexical
from ragagent.index.delta import Delta
from ragagent.index.generation import Generation, Vanished
from ragagent.index.manifest import Manifest
from ragagent.index.positions import Positions


def check(store: Path, current: Manifest) -> None:
    """Drop what a crash left beyond the manifest's counts, and check what is cheap to check. Raises Damaged.

    All but the vectors: a link into nowhere would end the readers that follow it.
    """
    with files.reading(f"The index of store '{store.name}'"):
        delta.cut(store, current)
    for part in current.parts:
        generation.check(store, part.number, vectors=False)
    if lexical.commit(store / lexical.NAME) < current.commit:
        raise Damaged(f"The lexical index of store '{store.name}' is older than its manifest.")


def positions(store: Path, current: Manifest) -> Positions:
    """Read where every chunk stands. Opens all that a reader would, so that what is damaged is found here first."""
    with files.reading(f"The index of store '{store.name}'"):
        newer = Delta.open(store, current)
    opened = generations(store, current)
    try:
        return Positions([part.rows[:, 0] for part in opened], newer.rows[:, 0], newer.dead)
    finally:
        for part in opened:
            part.release()


def generations(store: Path, current: Manifest) -> list[Generation]:
    """Open the manifest's generations, each held once. Raises Damaged."""
    opened: list[Generation] = []
    try:
        for part in current.parts:
            opened.append(Generation.open(store, part, current.dimension))
    except BaseException as exc:
        for one in opened:
            one.release()
        if isinstance(exc, Vanished):
            raise Damaged(f"Store '{store.name}' lacks a generation that its manifest names.") from None
        raise
    return opened
