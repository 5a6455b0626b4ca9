"""Texts, questions and vectors for the benchmarks of size: real ones, and beyond them recombined ones.

Real are the package descriptions that apt keeps on a Debian or Ubuntu machine (some 60,000 in English, of 400
characters); elsewhere the paragraphs of XQuAD. A text beyond them joins pieces of two real ones, so it has their words
and lies between their vectors. Everything is drawn from one seed: the same size is the same corpus, and a smaller one
is the beginning of a larger one. Questions are real as well, and of texts that are held out: a package's one-line
synopsis, or XQuAD's own questions.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ragagent import config_file, text
from ragagent.providers import registry

SEED = 20261127
CACHE = Path(os.environ.get("RAGAGENT_BENCH_CACHE", Path(__file__).parent / ".corpora"))
APT_LISTS = Path("/var/lib/apt/lists")
APT_HELPER = Path("/usr/lib/apt/apt-helper")
XQUAD = Path(os.environ.get("RAGAGENT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")) / "xquad.en.json"

MAX_CHARS = 1_500  # One text is one chunk: the chunker cuts at 400 tokens of four characters.
HELD_OUT = 2_000
BATCH = 4_096  # texts embedded at a time

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Corpus:
    source: str
    real: tuple[str, ...]
    questions: tuple[str, ...]

    def texts(self, count: int, first: int = 0) -> Iterator[str]:
        """Yield the texts from number `first` on, `count` of them: all the real ones, then recombined ones."""
        for number in range(first, first + count):
            yield self.real[number] if number < len(self.real) else self._recombined(number)

    def described(self, size: int) -> str:
        made = max(size - len(self.real), 0)
        return f"{size - made:,} {self.source}, {made:,} recombined from their sentences (seed {SEED})"

    def _recombined(self, number: int) -> str:
        draw = random.Random(SEED + number)
        one, other = draw.choice(self.real), draw.choice(self.real)
        return f"{_half(one, draw)}\n{_half(other, draw)}"[:MAX_CHARS]


def load() -> Corpus:
    """Return the corpus of this machine. Exits when there is neither apt's lists nor XQuAD."""
    found = _debian() or _xquad()
    if found is None:
        raise SystemExit(f"No texts: neither {APT_LISTS}/*Translation-en* nor {XQUAD} is there ($RAGAGENT_TEST_DATA).")
    return found


def directory(corpus: Corpus) -> Path:
    """Return where what was made from the corpus is kept."""
    path = CACHE / corpus.source.replace(" ", "-")
    path.mkdir(parents=True, exist_ok=True)
    return path


def embed(texts: list[str]) -> Vectors:
    """Return the configured embedder's vectors, float32 (n, dimension)."""

    async def run() -> Vectors:
        embedder = registry.embedder(config_file.load().embedder)
        try:
            return await embedder.embed(texts)
        finally:
            await embedder.aclose()

    return asyncio.run(run())


def vectors(corpus: Corpus, count: int) -> Vectors:
    """Return the vectors of the first `count` texts, mapped from the cache, which is filled as far as it has to be."""
    dimension = config_file.load().embedder.dimension
    path = directory(corpus) / f"vectors-{SEED}-{dimension}.f32"
    have = path.stat().st_size // (4 * dimension) if path.exists() else 0
    with path.open("ab") as file:
        file.truncate(have * 4 * dimension)
        for first in range(have, count, BATCH):
            batch = list(corpus.texts(min(BATCH, count - first), first))
            file.write(embed(batch).astype("<f4").tobytes())
    mapped: Any = np.memmap(path, "<f4", "r", shape=(count, dimension))
    return mapped  # type: ignore[no-any-return]


def attributes(count: int) -> list[dict[str, int]]:
    """Return each text's attributes: `thousandth` is 0..999 at random, the others coarser parts of the same number."""
    draws = np.random.default_rng(SEED).integers(0, 1000, count)
    return [{"half": n % 2, "tenth": n % 10, "hundredth": n % 100, "thousandth": n} for n in draws.tolist()]


def _debian() -> Corpus | None:
    lists = sorted(APT_LISTS.glob("*Translation-en*"))
    if not lists or not APT_HELPER.exists():
        return None
    found: dict[str, None] = {}
    for path in lists:
        listed = subprocess.run([APT_HELPER, "cat-file", path], check=True, capture_output=True, text=True).stdout
        for entry in re.finditer(r"^Description-en: (.*(?:\n .*)*)", listed, re.MULTILINE):
            found[re.sub(r"\n \.?", r"\n", entry.group(1))[:MAX_CHARS]] = None
    texts = sorted(found)
    random.Random(SEED).shuffle(texts)
    held_out = min(HELD_OUT, len(texts) // 10)
    questions = dict.fromkeys(one.partition("\n")[0] for one in texts[:held_out])
    return Corpus("Debian package descriptions", tuple(texts[held_out:]), tuple(questions))


def _xquad() -> Corpus | None:
    if not XQUAD.exists():
        return None
    paragraphs = [p for article in json.loads(XQUAD.read_text("utf-8"))["data"] for p in article["paragraphs"]]
    random.Random(SEED).shuffle(paragraphs)
    questions = dict.fromkeys(qa["question"] for paragraph in paragraphs for qa in paragraph["qas"])
    return Corpus("XQuAD paragraphs", tuple(p["context"][:MAX_CHARS] for p in paragraphs), tuple(questions))


def _half(whole: str, draw: random.Random) -> str:
    """Return about half of a text's sentences, next to each other."""
    spans = list(text.sentences(whole))
    if len(spans) < 2:
        return whole[: MAX_CHARS // 2]
    count = (len(spans) + 1) // 2
    first = draw.randrange(len(spans) - count + 1)
    return whole[spans[first][0] : spans[first + count - 1][1]]
