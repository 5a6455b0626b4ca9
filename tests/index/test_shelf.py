"""One store's newest searcher: when it is gone over to, and when what it held is let go of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from index.conftest import STORE, Bed, rows, vector
from ragagent.index import lock, shelf
from ragagent.index.searcher import Searcher
from ragagent.index.shelf import Shelf

EF = 64


@pytest.fixture
def woken() -> list[bool]:
    return []


@pytest.fixture
def opened(bed: Bed, woken: list[bool]) -> Iterator[Shelf]:
    with closing(Shelf(bed.root / STORE, EF, lambda: woken.append(True))) as one:
        yield one


def looked(one: Shelf, look: Callable[[Searcher], int] = lambda searcher: searcher.generation) -> int:
    searcher = one.take()
    assert searcher is not None
    try:
        return look(searcher)
    finally:
        searcher.release()


def test_what_is_over_is_let_go_of_though_nobody_asks(bed: Bed, opened: Shelf) -> None:
    writer = bed.writer()
    writer.publish(1, rows([1]))
    assert looked(opened) == 1
    writer.compact()
    assert writer.prune() == []
    opened.follow()
    assert writer.prune() == [1]
    assert looked(opened) == 2


def test_what_is_taken_is_not_let_go_of(bed: Bed, opened: Shelf) -> None:
    writer = bed.writer()
    writer.publish(1, rows([1]))
    searcher = opened.take()
    assert searcher is not None
    writer.compact()
    opened.follow()
    assert searcher.search(vector(1), ["all"], candidates=5).dense[0][0] == 1
    assert writer.prune() == []
    searcher.release()
    assert writer.prune() == [1]


def test_nothing_is_opened_where_nothing_was(bed: Bed, opened: Shelf) -> None:
    writer = bed.writer()
    writer.publish(1, rows([1]))
    opened.follow()
    writer.compact()
    assert writer.prune() == [1]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_store_that_is_gone_or_damaged_is_let_go_of(bed: Bed, opened: Shelf, is_there: bool) -> None:
    bed.writer().publish(1, rows([1]))
    assert looked(opened) == 1
    if is_there:
        (bed.store / "MANIFEST").write_bytes(b"nothing")
    else:
        (bed.store / "MANIFEST").unlink()
    assert lock.exclusive(bed.store / "000001" / "LOCK") is None
    opened.follow()
    held = lock.exclusive(bed.store / "000001" / "LOCK")
    assert held is not None
    held.close()


def test_a_large_generation_of_the_same_writes_is_opened_beside(
    bed: Bed, opened: Shelf, woken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "_AT_ONCE_ROWS", 1)
    writer = bed.writer()
    writer.publish(1, rows([1, 2]))
    assert looked(opened) == 1
    writer.compact()
    assert (looked(opened), woken) == (1, [True]), "the old one shows the same"
    opened.follow()
    assert (looked(opened), woken) == (2, [True])
    writer.publish(2, rows([3, 4]))
    writer.compact()
    assert looked(opened, lambda searcher: searcher.seq) == 2, (
        "a newer write is never waited for by serving an older one"
    )
    assert woken == [True]


def test_a_closed_shelf_gives_nothing(bed: Bed, opened: Shelf) -> None:
    bed.writer().publish(1, rows([1]))
    assert looked(opened) == 1
    opened.close()
    assert opened.take() is None
    opened.follow()
    assert lock.exclusive(bed.store / "000001" / "LOCK") is not None
