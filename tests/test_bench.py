"""The benchmarks of size: that their corpus is what it says, and that they run from beginning to end on a small one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import corpus
from caching import traces
from report import Report
from searching.exact import Exact

BENCH = Path(__file__).parents[1] / "bench"

REAL = tuple(f"Package {n} does the {n}th thing. It needs {n} others. Nobody knows why." for n in range(20))
MADE = corpus.Corpus("test sentences", REAL, ("the third thing",))


def test_a_corpus_is_the_same_each_time_and_a_smaller_one_its_beginning() -> None:
    large = list(MADE.texts(60))
    assert large[:20] == list(REAL)
    assert list(MADE.texts(30)) == large[:30]
    assert list(MADE.texts(15, 40)) == large[40:55]
    assert len(set(large)) > 50
    sentences = {part.strip() for text in REAL for part in text.split(". ")}
    assert all(any(part in text for part in sentences) for text in large[20:])


def test_each_text_is_one_chunk() -> None:
    long = corpus.Corpus("long sentences", ("A word. " * 1000, "Another word. " * 1000), ())
    assert all(len(text) <= corpus.MAX_CHARS for text in long.texts(20, 2))


def test_attributes_leave_the_shares_that_they_are_named_for() -> None:
    found = corpus.attributes(20_000)
    for key, share in (("half", 0.5), ("tenth", 0.1), ("hundredth", 0.01), ("thousandth", 0.001)):
        assert sum(one[key] == 1 for one in found) / len(found) == pytest.approx(share, rel=0.5)


def test_recall_counts_what_scores_as_well_as_the_tenth_and_nothing_beyond_the_tenth_place() -> None:
    vectors = np.eye(40, dtype=np.float32)
    question = np.linspace(1, 0, 40, dtype=np.float32)[None]
    exact = Exact(vectors, question)
    assert exact.recall([list(range(10))]) == 1.0
    assert exact.recall([[*range(5), *range(20, 30)]]) == 0.5
    assert exact.recall([[*range(20, 30), *range(10)]]) == 0.0
    assert exact.recall([[0] * 10]) == 0.1
    assert exact.recall([[]]) == 0.0
    allowed = Exact(vectors, question, np.arange(0, 40, 2))
    assert allowed.recall([list(range(0, 20, 2))]) == 1.0
    assert allowed.recall([list(range(10))]) == 0.5  # What the filter forbids is no find.


def test_a_report_says_what_misses_its_target(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = Report()
    report.add(10, "recall", 0.9, at_least=0.95)
    report.add(20, "recall", 0.96, at_least=0.95)
    report.add(10, "time", 3.0, "ms", at_most=2)
    assert [one.name for one in report.failures()] == ["recall", "time"]
    assert "0.9 !" in report.table()
    assert "0.96 !" not in report.table()
    assert "FAILS" in capsys.readouterr().out
    report.write(tmp_path / "report.json")
    assert len(json.loads((tmp_path / "report.json").read_text())["measurements"]) == 3


def test_traces_are_the_same_each_time_and_each_what_it_is_named_for() -> None:
    assert all((make() == make()).all() for make in traces.TRACES.values())
    once, zipf = traces.asked_once(), traces.zipf()
    assert (once >= traces.QUESTIONS).mean() == pytest.approx(0.4, abs=0.01)
    assert len(np.unique(once[once >= traces.QUESTIONS])) == (once >= traces.QUESTIONS).sum()
    assert (traces.scans() >= traces.QUESTIONS).mean() == pytest.approx(0.2)
    assert not set(traces.rewritten()[:10_000]) & set(traces.rewritten()[10_000:20_000])
    assert np.bincount(zipf).max() > 100 * np.bincount(zipf).mean()
    sizes = traces.sizes(zipf)
    assert (sizes[zipf == zipf[0]] == sizes[0]).all()
    assert sizes.min() >= 200
    assert sizes.max() <= 20_000
    assert np.median(sizes) == pytest.approx(1_500, rel=0.2)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["search.py", "--sizes", "1000,2000", "--queries", "20", "--only", "legs", "served", "filters"], 60),
        (["ingest.py", "--sizes", "1000", "--chunks", "500", "--singles", "10"], 15),
        (["cache.py", "--seconds", "2"], 60),
    ],
)
def test_it_runs_from_beginning_to_end(command: list[str], expected: int, tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    subprocess.run(
        [sys.executable, str(BENCH / command[0]), *command[1:], "--json", str(found)],
        check=True,
        timeout=600,
        env={**os.environ, "RAGAGENT_BENCH_CACHE": str(tmp_path / "corpora")},
    )
    assert len(json.loads(found.read_text())["measurements"]) >= expected
