"""Which embedder serves a store."""

from __future__ import annotations

import pytest

from fakes import BagOfWords
from ragagent.errors import Conflict
from ragagent.providers.embedders import Embedders


def test_a_store_is_served_by_the_one_that_made_its_vectors() -> None:
    new, old, small = BagOfWords(32, "new"), BagOfWords(32, "old"), BagOfWords(16, "old")
    embedders = Embedders(new, [old, small])
    assert embedders.default is new
    assert embedders.find("old", 16) is small
    assert embedders.of("old", 32, "Store 'x'") is old
    assert embedders.find("new", 16) is None


def test_where_there_is_none_the_error_names_the_store_what_there_is_and_the_ways_on() -> None:
    with pytest.raises(Conflict) as caught:
        Embedders(BagOfWords(8, "a"), [BagOfWords(9, "b")]).of("c", 8, "Vector store 'x'")
    message = caught.value.message
    assert message.startswith("Vector store 'x' holds vectors of 'c' (8), and there is no such embedder, only")
    assert "'a' (8), 'b' (9)" in message
    assert "[embedders.NAME]" in message
    assert "ragagent index reembed" in message


@pytest.mark.anyio
async def test_all_are_closed() -> None:
    closed: list[str] = []

    class Closing(BagOfWords):
        async def aclose(self) -> None:
            closed.append(self.model)

    await Embedders(Closing(8, "a"), [Closing(8, "b")]).aclose()
    assert closed == ["a", "b"]
