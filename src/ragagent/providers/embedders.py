"""The configured embedders, and which of them made a store's vectors.

Two vectors compare only when one model made both, with the same dimension: a cosine of two models is a number that
looks right and means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from ragagent.errors import Conflict
from ragagent.providers.base import Embedder


class Embedders:
    """`default` is the one of new stores; the others serve stores whose vectors are theirs."""

    def __init__(self, default: Embedder, others: Sequence[Embedder] = ()) -> None:
        self.default = default
        self._all = (default, *others)

    def find(self, model: str, dimension: int) -> Embedder | None:
        """Return the embedder whose vectors compare with those of `model` in `dimension`."""
        return next((each for each in self._all if (each.model, each.dimension) == (model, dimension)), None)

    def of(self, model: str, dimension: int, holder: str) -> Embedder:
        """Return that embedder. Raises Conflict, which names `holder`, the store, and the two ways on."""
        if (found := self.find(model, dimension)) is not None:
            return found
        known = ", ".join(f"'{each.model}' ({each.dimension})" for each in self._all)
        raise Conflict(
            f"{holder} holds vectors of '{model}' ({dimension}), and there is no such embedder, only {known}. Write "
            "it down again as [embedders.NAME], or make the store's vectors anew with 'ragagent index reembed'.",
            code="embedder_not_configured",
        )

    async def aclose(self) -> None:
        for each in self._all:
            await each.aclose()
