"""The questions of one run, with all that a search takes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corpus import Corpus, embed
from ragagent import text


@dataclass(frozen=True)
class Question:
    text: str
    terms: tuple[str, ...]
    vector: npt.NDArray[np.float32]


def questions(corpus: Corpus, count: int) -> list[Question]:
    chosen = list(corpus.questions[:count])
    return [
        Question(one, tuple(dict.fromkeys(text.tokens(one))), vector)
        for one, vector in zip(chosen, embed(chosen), strict=True)
    ]
