"""The gates of the semantic cache: which pairs of questions they let share an answer, and what others would.

    python bench/caching/semantic.py [--data DIRECTORY]

False hits are counted on pairs in which exactly one thing differs, in English and Chinese: those of the templates in
pairs.py, and XQuAD's real questions with one word, name or number replaced. Hits are counted on all of XQuAD's 2,380
questions, typed in two dozen other ways. The cosines are the built-in embedder's, of the questions in one spelling and
as they were typed. XQuAD is looked for in --data, $RAGAGENT_TEST_DATA, or ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import anyio
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from caching import pairs  # bench/ is no package
from caching.pairs import VARIANTS, Pair
from ragagent import config, text
from ragagent.engine.answering.wording import spelling, wording
from ragagent.providers.wordllama import WordLlama
from report import Report

DATA = Path(os.environ.get("RAGAGENT_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
THRESHOLDS = (0.7, 0.8, 0.85, 0.9, 0.95, 0.98)

Gate = Callable[[str], object]  # Two questions pass when it says the same of both.

GATES: dict[str, Gate] = {
    "set of stems, no stop words": lambda question: frozenset(text.content_tokens(question)),
    "set of stems": lambda question: frozenset(text.tokens(question)),
    "sequence of stems": lambda question: tuple(text.tokens(question)),
    "multiset of words, no manners": lambda question: frozenset(Counter(wording(question).split()).items()),
    "ours: words in their order, no manners": wording,
}


def measure(report: Report, data: Path = DATA) -> None:
    real = {language: _questions(data, language) for language in VARIANTS}
    made, replaced = pairs.must_refuse(), list(pairs.of_real(real["en"], real["zh"]))
    report.note(f"{len(made):,} pairs from templates and {len(replaced):,} of real questions that must not be one")
    for name, gate in GATES.items():
        is_ours = gate is wording
        for kind, of_kind in (("templates", made), ("real questions", replaced)):
            report.add(
                len(of_kind), f"false hits, {name}: {kind}", _passed(gate, of_kind), at_most=0 if is_ours else None
            )
        for language, questions in real.items():
            share, worst = min(_shares(gate, language, questions))
            label = f"least hits ({worst}), {name}: {language}"
            report.add(len(questions), label, share, at_least=0.95 if is_ours else None)
    _cosines(report, made, real)
    _cost(report, real)


def _passed(gate: Gate, found: Sequence[Pair]) -> int:
    return sum(gate(pair.one) == gate(pair.other) for pair in found)


def _shares(gate: Gate, language: str, questions: Sequence[str]) -> Iterator[tuple[float, str]]:
    for variant, dressed in VARIANTS[language].items():
        yield sum(gate(question) == gate(dressed(question)) for question in questions) / len(questions), variant


def _cosines(report: Report, made: Sequence[Pair], real: dict[str, list[str]]) -> None:
    """How much a cosine alone would let through, and what it costs of the hits."""
    of_pairs = _cosine([spelling(pair.one) for pair in made], [spelling(pair.other) for pair in made])
    for least in THRESHOLDS:
        report.add(len(made), f"false hits, cosine >= {least} alone: templates", int((of_pairs >= least).sum()))
    ways: dict[str, Callable[[str], str]] = {"in one spelling": spelling, "as typed": lambda question: question}
    for way, prepared in ways.items():
        for language, questions in real.items():
            found = {
                variant: _cosine(
                    [prepared(question) for question in questions],
                    [prepared(dressed(question)) for question in questions],
                )
                for variant, dressed in VARIANTS[language].items()
            }
            for least in THRESHOLDS:
                share, worst = min((float((cosines >= least).mean()), variant) for variant, cosines in found.items())
                is_default = prepared is spelling and least == config.Semantic().min_cosine
                label = f"least hits ({worst}), cosine >= {least} {way}: {language}"
                report.add(len(questions), label, share, at_least=0.95 if is_default else None)


def _cosine(ones: Sequence[str], others: Sequence[str]) -> np.ndarray:
    embedder = WordLlama(config.Embedder())
    found: np.ndarray = np.einsum("ij,ij->i", anyio.run(embedder.embed, ones), anyio.run(embedder.embed, others))
    return found


def _cost(report: Report, real: dict[str, list[str]]) -> None:
    for language, questions in real.items():
        began = time.perf_counter()
        for question in questions:
            wording(question)
        report.add(
            len(questions), f"one wording: {language}", (time.perf_counter() - began) / len(questions) * 1e6, "µs"
        )


def _questions(data: Path, language: str) -> list[str]:
    articles = json.loads((data / f"xquad.{language}.json").read_text(encoding="utf-8"))["data"]
    return [qa["question"] for article in articles for paragraph in article["paragraphs"] for qa in paragraph["qas"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    report = Report()
    measure(report, parser.parse_args().data)
    missed = report.failures()
    print(f"\n{len(missed)} of {sum(one.holds is not None for one in report.measurements)} targets missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
