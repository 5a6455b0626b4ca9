"""How documents are to be cut."""

from __future__ import annotations

from typing import Any

import pytest

from bodies import refusal, said
from ragagent.api.schemas.vector_stores import CreateStore, chunking_of
from ragagent.engine.catalog import Chunking


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (None, None),
        ({"type": "auto"}, None),
        ({"type": "auto", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}, None),
        ({"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 50}}, Chunking(100, 50)),
        ({"type": "static", "static": {}}, Chunking(800, 400)),
    ],
)
def test_a_chunking_strategy_is_a_chunking(strategy: Any, expected: Chunking | None) -> None:
    asked = said(CreateStore, {"chunking_strategy": strategy})
    assert chunking_of(asked.chunking_strategy) == expected


@pytest.mark.parametrize(
    ("static", "param"),
    [
        (None, "chunking_strategy"),
        ({"max_chunk_size_tokens": 99, "chunk_overlap_tokens": 0}, "chunking_strategy.static.max_chunk_size_tokens"),
        ({"max_chunk_size_tokens": 4097, "chunk_overlap_tokens": 0}, "chunking_strategy.static.max_chunk_size_tokens"),
        ({"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 51}, "chunking_strategy.static"),
        ({"max_chunk_size_tokens": 100, "chunk_overlap_tokens": -1}, "chunking_strategy.static.chunk_overlap_tokens"),
    ],
)
def test_a_chunking_that_cannot_be_is_refused(static: Any, param: str) -> None:
    assert refusal(CreateStore, {"chunking_strategy": {"type": "static", "static": static}}).param == param
