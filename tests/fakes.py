"""Models of one method each, and the parser without its process: deterministic, and told what to do by the test."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import AsyncGenerator, Callable, Sequence

import anyio
import anyio.lowlevel
import numpy as np

from ragagent.engine.indexing.parsing.parse import parse
from ragagent.engine.indexing.parsing.parsed import Parsed
from ragagent.providers.base import Delta, Vectors, unit
from ragagent.text import tokens
from ragagent.types import Prompt, Usage


class BagOfWords:
    """An embedder: each token falls into one of `dimension` buckets. `check` sees every batch, and may raise."""

    def __init__(self, dimension: int = 32, model: str = "bag-of-words") -> None:
        self.model = model
        self.dimension = dimension
        self.is_remote = False
        self.batches: list[list[str]] = []
        self.check: Callable[[Sequence[str]], None] = lambda texts: None

    async def embed(self, texts: Sequence[str]) -> Vectors:
        self.batches.append(list(texts))
        self.check(texts)
        rows = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for token in tokens(text):
                row[zlib.crc32(token.encode()) % self.dimension] += 1
        return unit(rows)

    async def aclose(self) -> None:
        pass


class Scripted:
    """A generator that says its pieces, whatever it is asked.

    `asked` tells that it was; then it waits for `gate`, if there is one, and ends with `failure`, if there is one.
    """

    def __init__(self, *pieces: str, usage: Usage | None = None, is_cut: bool = False) -> None:
        self.model = self.identity = "scripted"
        self.pieces = pieces
        self.prompts: list[Prompt] = []
        self.asked = anyio.Event()
        self.gate: anyio.Event | None = None
        self.failure: Exception | None = None
        self._usage = usage
        self._is_cut = is_cut

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta]:
        self.prompts.append(prompt)
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        for piece in self.pieces:
            yield Delta(piece)
        if self.failure is not None:
            raise self.failure
        yield Delta(usage=self._usage, finish_reason="length" if self._is_cut else "stop")

    async def aclose(self) -> None:
        pass


class Failing:
    """A generator that fails after so many words."""

    model = identity = "failing"

    def __init__(self, error: Exception, words: int) -> None:
        self._error = error
        self._words = words

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta]:
        for _ in range(self._words):
            yield Delta("word ")
        raise self._error

    async def aclose(self) -> None:
        pass


class Endless:
    """A generator that never ends: it talks on, or it thinks, until it is closed."""

    model = identity = "endless"

    def __init__(self, *, thinks: bool = False) -> None:
        self._thinks = thinks
        self.began = anyio.Event()
        self.ended = anyio.Event()

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta]:
        self.began.set()
        try:
            if self._thinks:
                await anyio.sleep_forever()
            for _ in itertools.count():
                yield Delta("word ")
                await anyio.lowlevel.checkpoint()
        finally:
            self.ended.set()

    async def aclose(self) -> None:
        pass


class InProcessParser:
    """Parses right here. `check` sees every document, and may raise or do something behind the indexer's back."""

    def __init__(self) -> None:
        self.check: Callable[[str], None] = lambda filename: None

    def parse(self, filename: str, data: bytes) -> Parsed:
        self.check(filename)
        return parse(filename, data, max_chars=1_000_000)
