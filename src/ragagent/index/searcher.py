"""A searcher: one consistent view of a store (generations, delta, lexical) as of one manifest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragagent.index import files
from ragagent.index.delta import Delta
from ragagent.index.dense import Dense
from ragagent.index.files import Float32, Int64
from ragagent.index.generation import Generation
from ragagent.index.held import Held
from ragagent.index.lexical import NAME, Lexical, LexicalView
from ragagent.index.manifest import Manifest, Part

Leg = list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Legs:
    """What each leg found: (chunk id, score), best first. Cosines in `dense`, BM25 in `lexical`."""

    dense: Leg
    lexical: Leg


class Searcher(Held):
    """A store as of `manifest`, open for as long as it is held. Safe for threads."""

    def __init__(
        self,
        manifest: Manifest,
        generations: Sequence[Generation],
        delta: Delta,
        lexical: Lexical,
        view: LexicalView,
        ef_search: int,
    ) -> None:
        super().__init__()
        self.seq = manifest.seq
        self.generation = manifest.generation
        self.model = manifest.model
        self.dimension = manifest.dimension
        self.rows = manifest.rows
        self._generations = generations
        self._delta = delta
        self._lexical = lexical
        self._view = view
        self._dense = Dense(generations, delta, manifest.dimension, ef_search)

    @classmethod
    def open(cls, store: Path, manifest: Manifest, ef_search: int, previous: Searcher | None = None) -> Searcher:
        """Open `store` as of `manifest`, reusing what `previous` maps of it.

        Raises Vanished when the manifest is out of date, and Damaged, which an outdated one may look like as well:
        only a manifest that still stands tells the two apart.
        """
        standing = _standing(previous, store)
        generations: list[Generation] = []
        try:
            for part in manifest.parts:
                generations.append(standing.get(part) or Generation.open(store, part, manifest.dimension))
                if part in standing:
                    standing[part].hold()
            known, lexical = None, None
            if previous is not None and standing:  # The same directory, then, and not one of an index made anew.
                lexical = previous._lexical
                known = previous._delta if previous._generations[-1] is generations[-1] else None
            with files.reading(f"The index of store '{store.name}'"):
                delta = Delta.open(store, manifest, known)
            # The manifest was read before this commit is, so the lexical view is at least as new as it.
            lexical = lexical or Lexical(store / NAME)
            return cls(manifest, generations, delta, lexical, lexical.view(), ef_search)
        except BaseException:
            for generation in generations:
                generation.release()
            raise

    def search(
        self, vector: Float32 | None, terms: Sequence[str], *, candidates: int, documents: Int64 | None = None
    ) -> Legs:
        """Return up to `candidates` hits of each leg; only chunks of `documents` (sorted ids), when given.

        `vector` (dimension,) is of unit length; without one the dense leg is empty, and without terms the lexical leg.
        Raises Invalid for a vector that is neither.
        """
        selections = self._dense.select(documents)
        allowed = sum(part.count for part in selections if part is not None)
        return Legs(
            self._dense.search(vector, candidates, selections) if vector is not None else [],
            self._view.search(terms, candidates, documents, allowed / max(self.rows, 1)),
        )

    def doc_freqs(self, terms: Iterable[str]) -> dict[str, int]:
        """Return in how many chunks each term occurs."""
        return self._view.doc_freqs(terms)

    def _close(self) -> None:
        del self._dense, self._view, self._lexical  # These look into the generations' memory; they go last.
        for generation in self._generations:
            generation.release()


class EmptySearcher(Searcher):
    """A store that has no manifest yet: nothing, as of seq 0. Held and released like any other."""

    def __init__(self) -> None:
        Held.__init__(self)
        self.seq = self.generation = self.dimension = self.rows = 0
        self.model = ""

    def search(
        self, vector: Float32 | None, terms: Sequence[str], *, candidates: int, documents: Int64 | None = None
    ) -> Legs:
        return Legs([], [])

    def doc_freqs(self, terms: Iterable[str]) -> dict[str, int]:
        return dict.fromkeys(terms, 0)

    def _close(self) -> None:
        pass


def _standing(previous: Searcher | None, store: Path) -> dict[Part, Generation]:
    """Return what `previous` has mapped that still lies in `store` under its number.

    The number alone would not do: an index made anew counts from the start again.
    """
    if previous is None or isinstance(previous, EmptySearcher):
        return {}
    return {generation.part: generation for generation in previous._generations if generation.still_stands(store)}
