"""Slices: as large as the embedder is fast, and blame only where it belongs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pytest

from fakes import BagOfWords
from ragagent.engine.indexing import slices
from ragagent.engine.indexing.slices import Slices, Unembeddable
from ragagent.errors import Unavailable, Upstream
from ragagent.providers.endpoint import Refused, Transient

pytestmark = pytest.mark.anyio


def failing(on: Callable[[str], bool], error: Exception) -> BagOfWords:
    embedder = BagOfWords()

    def check(texts: Sequence[str]) -> None:
        if any(map(on, texts)):
            raise error

    embedder.check = check
    return embedder


async def test_no_text_asks_nobody() -> None:
    embedder = BagOfWords()
    assert (await Slices(embedder).embed([])).shape == (0, 0)
    assert embedder.batches == []


async def test_a_fast_embedder_gets_more_and_a_slow_one_less(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = Slices(BagOfWords())
    for _ in range(5):
        await cut.embed(["text"] * cut.size)
    assert cut.size == slices.LARGEST
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    for _ in range(20):
        await cut.embed(["text"] * cut.size)
    assert cut.size == 1


async def test_a_slice_that_was_not_full_says_nothing_of_the_next() -> None:
    cut = Slices(BagOfWords())
    await cut.embed(["text"])
    assert cut.size == slices.FIRST


@pytest.mark.parametrize(
    "error", [Transient("503"), Refused("404", 404, "no model"), Upstream("not finite"), Unavailable("no weights")]
)
async def test_an_embedder_that_does_nothing_is_away_and_no_text_is_blamed(error: Unavailable) -> None:
    cut = Slices(failing(lambda text: True, error))
    for _ in range(5):
        with pytest.raises(Unavailable) as raised:
            await cut.embed(["one", "two"])
        assert raised.value is error


@pytest.mark.parametrize(("error", "is_final"), [(Refused("400", 400, ""), True), (Upstream("not finite"), False)])
async def test_a_text_that_alone_is_not_taken_is_blamed(error: Upstream, is_final: bool) -> None:
    cut = Slices(failing(lambda text: text == "bad", error))
    with pytest.raises(Unembeddable) as raised:
        await cut.embed(["good", "bad"])
    assert (raised.value.is_final, raised.value.message) == (is_final, error.message)
    assert cut.size == slices.FIRST


async def test_what_may_pass_makes_slices_smaller_until_one_text_stands_alone() -> None:
    cut = Slices(failing(lambda text: text == "bad", Transient("500")))
    sizes = []
    while cut.size > 1:
        with pytest.raises(Transient):
            await cut.embed(["good", "bad"])
        sizes.append(cut.size)
    assert sizes == [4, 1]
    with pytest.raises(Unembeddable) as raised:
        await cut.embed(["bad"])
    assert not raised.value.is_final


async def test_one_who_is_asked_to_come_back_later_blames_nobody() -> None:
    cut = Slices(failing(lambda text: text == "bad", Transient("429", retry_after=3)))
    cut.size = 1
    with pytest.raises(Transient) as raised:
        await cut.embed(["bad"])
    assert raised.value.retry_after == 3
