from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from ragagent.errors import Conflict, Damaged
from ragagent.index import lexical
from ragagent.index.lexical import Lexical, LexicalWriter
from ragagent.text import tokens


@pytest.fixture
def path(tmp_path: Path) -> Path:
    lexical.create(tmp_path / "lexical")
    return tmp_path / "lexical"


@pytest.fixture
def writer(path: Path) -> Iterator[LexicalWriter]:
    with closing(LexicalWriter(path)) as writer:
        yield writer


def found(path: Path, text: str, documents: list[int] | None = None, share: float = 1.0) -> list[int]:
    allowed = None if documents is None else np.array(documents, np.int64)
    return [chunk for chunk, _ in Lexical(path).view().search(tokens(text), 10, allowed, share)]


def held(chunk_id: int, text: str, document_id: int = 1) -> tuple[int, int, str]:
    return chunk_id, document_id, " ".join(tokens(text))


def test_english_and_chinese_are_found_by_the_words_in_them(path: Path, writer: LexicalWriter) -> None:
    writer.replace([held(1, "Refunds are paid within 30 days."), held(2, "退款将在三十天内支付。")], [])
    assert found(path, "when was it refunded?") == [1]
    assert found(path, "退款多久支付") == [2]


@pytest.mark.parametrize("text", ['"', "a AND (", "tokens:[* TO", "x^-1", "\\", "NOT", "+-~*?:", "\x00"])
def test_what_users_type_is_never_syntax(path: Path, writer: LexicalWriter, text: str) -> None:
    writer.replace([held(1, "plain words")], [])
    assert found(path, text) == []
    assert found(path, f"plain {text}") == [1]


def test_a_chunk_held_again_is_held_once(path: Path, writer: LexicalWriter) -> None:
    writer.replace([held(1, "old words")], [])
    writer.replace([held(1, "new words")], [])
    assert found(path, "old") == []
    assert found(path, "words") == [1]


def test_a_forgotten_chunk_is_gone(path: Path, writer: LexicalWriter) -> None:
    writer.replace([held(1, "words"), held(2, "words")], [])
    writer.replace([], [1, 99])
    assert found(path, "words") == [2]


def test_a_filter_leaves_scores_alone(path: Path, writer: LexicalWriter) -> None:
    writer.replace([held(i, f"words number{i}", document_id=i) for i in range(1, 8)], [])
    view = Lexical(path).view()
    free = dict(view.search(["word"], 10, None, 1.0))
    for share in (1e-9, 1.0):  # filtered inside the query, and after it
        assert view.search(["word"], 10, np.array([2, 5]), share) == [(2, free[2]), (5, free[5])]


def test_a_filter_finds_the_same_whichever_way_it_looks(path: Path, writer: LexicalWriter) -> None:
    """The share says that hits are everywhere; here the only allowed one is the worst of two thousand."""
    worst = held(7, "needle " + "hay " * 60, document_id=3)
    writer.replace([*(held(i, "needle", document_id=2) for i in range(1000, 3000)), worst], [])
    assert found(path, "needle", [3], share=1.0) == [7]
    assert found(path, "needle", [3], share=1e-9) == [7]


def test_no_terms_no_documents_and_no_match_find_nothing(path: Path, writer: LexicalWriter) -> None:
    assert found(path, "words") == []
    writer.replace([held(1, "words")], [])
    assert found(path, "") == []
    assert found(path, "words", []) == []
    assert found(path, "nothing") == []


def test_a_long_query_keeps_its_rarest_terms(path: Path, writer: LexicalWriter) -> None:
    common = [f"c{i}" for i in range(lexical.MAX_TERMS + 50)]
    writer.replace([(i, 1, " ".join(common)) for i in range(5)] + [(9, 1, "rare")], [])
    view = Lexical(path).view()
    assert (9, view.search(["rare"], 10, None, 1.0)[0][1]) in view.search([*common, "rare"], 10, None, 1.0)
    absent = [f"absent{i}" for i in range(lexical.MAX_TERMS + 50)]
    assert [chunk for chunk, _ in view.search([*absent, "rare"], 10, None, 1.0)] == [9]


def test_a_monstrous_token_is_dropped_and_its_neighbours_are_not(path: Path, writer: LexicalWriter) -> None:
    writer.replace([(1, 1, "x" * 70_000 + " neighbour")], [])
    view = Lexical(path).view()
    assert view.doc_freqs(["neighbour", "x" * 70_000, "absent"]) == {"neighbour": 1, "x" * 70_000: 0, "absent": 0}


def test_a_view_stays_as_it_was_opened(path: Path, writer: LexicalWriter) -> None:
    reader = Lexical(path)
    before = reader.view()
    writer.replace([held(1, "words")], [])
    assert before.search(["word"], 10, None, 1.0) == []
    assert len(reader.view().search(["word"], 10, None, 1.0)) == 1


def test_two_writers_conflict(path: Path, writer: LexicalWriter) -> None:
    with pytest.raises(Conflict, match="writer already"):
        LexicalWriter(path)


def test_a_missing_index_is_damage_for_readers_and_writers(tmp_path: Path) -> None:
    (tmp_path / "lexical").mkdir()
    for kind in (Lexical, LexicalWriter):
        with pytest.raises(Damaged):
            kind(tmp_path / "lexical")


def test_a_cut_segment_is_damage(path: Path) -> None:
    with closing(LexicalWriter(path)) as writer:
        writer.replace([held(1, "words")], [])
    for segment in path.glob("*.term"):
        segment.write_bytes(segment.read_bytes()[:20])
    with pytest.raises(Damaged):
        Lexical(path)


@pytest.mark.parametrize("part", ["term", "fast"])
def test_a_turned_bit_in_a_segment_raises_nothing_but_damage(path: Path, part: str) -> None:
    """Tantivy panics on some."""
    with closing(LexicalWriter(path)) as writer:
        writer.replace([held(n, f"words of {n}") for n in range(3)], [])
    (segment,) = path.glob(f"*.{part}")
    data = segment.read_bytes()
    damaged = 0
    for place in range(len(data)):
        turned = path / "turned"  # Renamed into place: who has the old one mapped keeps it.
        turned.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        turned.rename(segment)
        try:
            view = Lexical(path).view()
            view.search(["word"], 10, None, 1.0)
            view.doc_freqs(["word"])
        except Damaged:
            damaged += 1
    assert damaged > 10
