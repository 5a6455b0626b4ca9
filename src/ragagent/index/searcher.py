"""A searcher: one consistent view of a store (generation, delta, lexical) as of one manifest."""

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
from ragagent.index.manifest import Manifest

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
        generation: Generation,
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
        self._generation = generation
        self._lexical = lexical
        self._view = view
        self._dense = Dense(generation, delta, manifest.dimension, ef_search)

    @classmethod
    def open(cls, store: Path, manifest: Manifest, ef_search: int, previous: Searcher | None = None) -> Searcher:
        """Open `store` as of `manifest`, reusing what `previous` maps when the generation is the same.

        Raises Vanished when the manifest is out of date, and Damaged, which an outdated one may look like as well:
        only a manifest that still stands tells the two apart.
        """
        generation, lexical = _reused(previous, store, manifest) or (
            Generation.open(store, manifest.generation, manifest.generation_rows, manifest.dimension),
            None,
        )
        try:
            with files.reading(f"The index of store '{store.name}'"):
                delta = Delta.open(store, manifest)
            # The manifest was read before this commit is, so the lexical view is at least as new as it.
            lexical = lexical or Lexical(store / NAME)
            return cls(manifest, generation, delta, lexical, lexical.view(), ef_search)
        except BaseException:
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
        del self._dense, self._view, self._lexical  # These look into the generation's memory; it goes last.
        self._generation.release()


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


def _reused(previous: Searcher | None, store: Path, manifest: Manifest) -> tuple[Generation, Lexical] | None:
    """Return what `previous` has open of the manifest's generation, held once more; None when it is another one.

    The number alone would not do: an index made anew counts from the start again.
    """
    if previous is None or isinstance(previous, EmptySearcher) or previous.generation != manifest.generation:
        return None
    if not previous._generation.still_stands(store):
        return None
    previous._generation.hold()
    return previous._generation, previous._lexical
