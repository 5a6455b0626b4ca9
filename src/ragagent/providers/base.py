"""What a model is to the rest of us: two protocols of one method each. `registry.py` names who speaks them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ragagent.types import Prompt, Usage

Vectors = NDArray[np.float32]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Delta:
    """A step of a generation: more text, or the usage once it is known, or, last of all, why it ended."""

    text: str = ""
    usage: Usage | None = None
    finish_reason: FinishReason | None = None


class Embedder(Protocol):
    @property
    def model(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    @property
    def is_remote(self) -> bool:
        """Whether a call goes over a network: it takes milliseconds, and may be paid for."""
        ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one row per text: float32, (len(texts), dimension), finite, of unit length. Raises Upstream."""
        ...

    async def aclose(self) -> None: ...


class Generator(Protocol):
    @property
    def model(self) -> str: ...

    @property
    def identity(self) -> str:
        """What decides, besides the prompt, what it says: where it runs, its defaults. Caches key on it."""
        ...

    def stream(self, prompt: Prompt) -> AsyncGenerator[Delta]:
        """Yield the answer in pieces; the last one, and it alone, has a `finish_reason`. Raises Upstream.

        Whoever leaves early closes it: the model goes on talking, and charging, until then.
        """
        ...

    async def aclose(self) -> None: ...


def unit(rows: Vectors) -> Vectors:
    """Scale each row to unit length. A row of zeros has no direction: it becomes the first axis, as do all its kind."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    is_blank = lengths == 0.0
    scaled: Vectors = (rows / np.where(is_blank, 1.0, lengths)).astype(np.float32)
    scaled[is_blank[:, 0], 0] = 1.0
    return scaled
