from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_ragagent import FakeRagagent
from ragagent.cli.client import Client
from ragagent.cli.load import BATCH, CONCURRENCY, each, load
from ragagent.cli.selection import Source
from ragagent.cli.shelf import Outcome, Shelf

MANY = 2 * BATCH + 3


@pytest.fixture
def shelf(fake: FakeRagagent) -> Iterator[Shelf]:
    with Client(fake.url) as client:
        yield Shelf(client, client.post("/v1/vector_stores", {"name": "default"})["id"], {})


def sources(directory: Path, count: int) -> list[Source]:
    found = []
    for number in range(count):
        path = directory / f"{number}.md"
        path.write_text(f"text {number}")
        found.append(Source(path, f"docs/{number}.md"))
    return found


def test_every_file_has_one_outcome_and_batches_are_full(shelf: Shelf, fake: FakeRagagent, tmp_path: Path) -> None:
    fake.slow = 2
    outcomes = list(load(shelf, sources(tmp_path, MANY)))
    assert Counter(outcome.result for outcome in outcomes) == {"added": MANY}
    assert len({outcome.name for outcome in outcomes}) == MANY
    assert [len(batch) for batch in fake.store().batches.values()] == [BATCH, BATCH, 3]


def test_one_refused_file_does_not_take_its_batch_along(shelf: Shelf, fake: FakeRagagent, tmp_path: Path) -> None:
    refused = Source(tmp_path / "1.md", f"docs/{'x' * 600}.md")
    outcomes = list(load(shelf, [*sources(tmp_path, 5), refused]))
    failed = [outcome for outcome in outcomes if outcome.result == "failed"]
    assert failed == [Outcome(refused.name, "failed", "'attributes': a value is too long.")]
    assert len(fake.names()) == len(fake.uploads) == 5


def test_giving_up_in_between_leaves_no_upload_outside_the_store(
    shelf: Shelf, fake: FakeRagagent, tmp_path: Path
) -> None:
    bad = Source(tmp_path / "none.md", "docs/none.md")
    outcomes = load(shelf, [*sources(tmp_path, CONCURRENCY * 2), bad, *sources(tmp_path, 1)])
    assert next(outcomes).name == bad.name  # The others wait in their batch.
    outcomes.close()  # type: ignore[attr-defined]
    assert len(fake.uploads) <= CONCURRENCY


def test_each_has_a_few_at_work_and_yields_every_result() -> None:
    lock, busy, most = threading.Lock(), 0, 0
    barrier = threading.Barrier(CONCURRENCY)

    def work(number: int) -> int:
        nonlocal busy, most
        with lock:
            busy, most = busy + 1, max(most, busy + 1)
        if number < CONCURRENCY:
            barrier.wait(10)  # Passed only if so many are at work at once.
        with lock:
            busy -= 1
        return number

    assert sorted(each(work, range(50))) == list(range(50))
    assert most == CONCURRENCY


def test_each_takes_items_only_as_it_goes() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = each(abs, items())
    next(results)
    assert len(taken) == CONCURRENCY
    results.close()  # type: ignore[attr-defined]


def test_each_raises_what_the_work_raises() -> None:
    def work(number: int) -> float:
        return 1 / number

    with pytest.raises(ZeroDivisionError):
        list(each(work, [1, 2, 0]))
