"""The embedded embedder: WordLlama's 256-d word vectors, averaged. No network, no key, weights inside the wheel.

They were trained so that their first 128 and 64 values are vectors of their own: cut off and scaled to unit length.

The model is 32 MB of vectors and a tokenizer. `load()` reads it once per process tree: called before the fork, all
workers share its pages. Texts are embedded in a thread, since the tokenizer and numpy let go of the interpreter.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

# Read when the tokenizer is first used: its thread pool does not survive a fork, and a core is a worker here.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import anyio.to_thread
import numpy as np
from tokenizers import Tokenizer

from ragagent import config
from ragagent.errors import ConfigError, Unavailable
from ragagent.providers.base import Vectors, unit

# wordllama calls logging.basicConfig(level=INFO) when it is imported, which does nothing where there is a handler.
_root = logging.getLogger()
_guard = logging.NullHandler()
_root.addHandler(_guard)
import wordllama  # noqa: E402

_root.removeHandler(_guard)

DIMENSION = 256
DIMENSIONS = (DIMENSION, 128, 64)

# A mean over more words than this tells no two texts apart; chunks are far shorter.
_MAX_CHARS = 16_384
# Word vectors are gathered for so many tokens at a time: 16 MiB.
_MAX_TOKENS = 16_384
_BATCH_TEXTS = 256
_INLINE_CHARS = 512


class _Model(NamedTuple):
    tokenizer: Tokenizer
    words: Vectors


class WordLlama:
    """Embeds with what `load()` has read. Texts without one word that it knows all get the same unit vector."""

    def __init__(self, settings: config.Embedder) -> None:
        if settings.dimension not in DIMENSIONS:
            raise ConfigError(
                f"Config key 'embedder.dimension' has value '{settings.dimension}'; 'wordllama' has "
                f"{', '.join(map(str, DIMENSIONS))}."
            )
        self.model = settings.model
        self.dimension = settings.dimension
        self.is_remote = False

    async def embed(self, texts: Sequence[str]) -> Vectors:
        # The way to a thread and back costs 0.2 ms; a question takes a third of that.
        if sum(map(len, texts)) <= _INLINE_CHARS:
            return _embed(texts, self.dimension)
        return await anyio.to_thread.run_sync(_embed, texts, self.dimension)

    async def aclose(self) -> None:
        return None


@functools.cache
def load() -> _Model:
    """Return the model, read on the first call. Raises Unavailable: the package came without its weights."""
    try:
        # The loader looks for the tokenizer in `tokenizer/`; the wheel has it in `tokenizers/`, as a cache would.
        package = Path(wordllama.__file__).parent
        loaded = wordllama.WordLlama.load(cache_dir=package, dim=DIMENSION, disable_download=True)
    except (OSError, ValueError) as exc:
        raise Unavailable("The embedded model cannot be read; reinstall the package 'wordllama'.") from exc
    # It pads a batch to its longest text, so that one long text costs the memory of all; we average without.
    loaded.tokenizer.no_padding()
    return _Model(loaded.tokenizer, loaded.embedding)


def _embed(texts: Sequence[str], dimension: int) -> Vectors:
    rows = np.empty((len(texts), dimension), dtype=np.float32)
    for first, batch in _batches(texts):
        rows[first : first + len(batch)] = unit(_means(batch)[:, :dimension])
    return rows


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    for first in range(0, len(texts), _BATCH_TEXTS):
        yield first, [_encodable(text) for text in texts[first : first + _BATCH_TEXTS]]


def _encodable(text: str) -> str:
    """Cut what is too long, and replace lone surrogates, for which the tokenizer has no bytes."""
    return text[:_MAX_CHARS].encode("utf-8", "replace").decode("utf-8")


def _means(texts: list[str]) -> Vectors:
    model = load()
    means = np.zeros((len(texts), DIMENSION), dtype=np.float32)
    for row, encoding in enumerate(model.tokenizer.encode_batch_fast(texts, add_special_tokens=False)):
        ids = np.minimum(encoding.ids[:_MAX_TOKENS], len(model.words) - 1)
        if ids.size:
            model.words[ids].mean(axis=0, dtype=np.float32, out=means[row])
    return means
