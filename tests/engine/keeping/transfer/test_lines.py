"""The lines of an export: what is wrong with one is said by field, and what is right comes back as it was."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from ragagent.engine.keeping.transfer import lines
from ragagent.errors import Invalid

STORE = {"type": "store", "id": "vs_a", "name": "docs", "model": "m", "dimension": 4}
DOCUMENT = {"type": "document", "store": "vs_a", "external_id": "a", "text": "A reload."}
VECTOR = np.array([0.6, 0.8, 0, 0], "<f4")
CHUNK = {"type": "chunk", "ordinal": 0, "start": 0, "end": 9, "text": "A reload.", "vector": [0.6, 0.8, 0, 0]}
OWNER = lines.store(STORE)


def document(**fields: Any) -> lines.DocumentLine:
    return lines.document({**DOCUMENT, **fields}, OWNER, max_chars=100)


def test_a_store_needs_no_more_than_what_makes_it_one() -> None:
    assert (OWNER.tenant, OWNER.metadata, OWNER.chunk_tokens, OWNER.overlap_tokens) == ("default", {}, 400, 0)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("id", None, "must be a string"),
        ("id", "", "1 to 512 characters"),
        ("name", 7, "must be a string"),
        ("model", "x" * 513, "1 to 512"),
        ("dimension", 0, "at least 1"),
        ("dimension", True, "whole number"),
        ("dimension", 4.5, "whole number"),
        ("dimension", 2**60, "whole number"),
        ("metadata", {"a": 1}, "must hold strings"),
        ("metadata", [], "an object"),
        ("created_at", -1, "whole number of at least 0"),
    ],
)
def test_what_is_wrong_with_a_store_is_named(field: str, value: Any, reason: str) -> None:
    with pytest.raises(Invalid, match=f"field '{field}' .*{reason}") as caught:
        lines.store({**STORE, field: value})
    assert caught.value.param == field


def test_a_text_by_hand_has_the_rest_from_its_store() -> None:
    found = document()
    assert (found.moved.filename, found.moved.chunk_tokens, found.moved.file_id, found.chunks) == ("a", 400, None, None)
    assert found.moved.data == b"A reload."


def test_a_file_comes_as_text_or_as_base64() -> None:
    for data in (b"plain", "重载".encode(), b"%PDF\xff\x00"):
        fields = {"type": "document", "file_id": "file-a", "filename": "a.pdf", **lines.encoded_data(data)}
        assert lines.document(json.loads(lines.encode(fields)), OWNER, max_chars=100).moved.data == data
    assert set(lines.encoded_data(b"\xff")) == {"base64"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"external_id": None}, "neither 'external_id' nor 'file_id'"),
        ({"external_id": 7}, "'external_id' must be a string"),
        ({"external_id": "a\x00"}, "none of them NUL"),
        ({"file_id": "f", "external_id": None}, "'filename' must be a string"),
        ({"text": None}, "'text' must be a string"),
        ({"text": " "}, "'text': The text is empty"),
        ({"text": "x" * 101}, "'text': The text has 101 characters"),
        ({"text": "a\x00b"}, "NUL"),
        ({"text": "\ud83d"}, "half a character"),
        ({"attributes": {"a": [1]}}, r"'attributes\.a' must be"),
        ({"attributes": {"a": None}}, r"'attributes\.a' must be"),
        ({"chunks": -1}, "'chunks'"),
        ({"external_id": None, "file_id": "f", "filename": "f", "base64": "?"}, "not base64"),
        ({"external_id": None, "file_id": "f", "filename": "f", "base64": ""}, "is empty"),
    ],
)
def test_what_is_wrong_with_a_document_is_named(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        document(**fields)


@pytest.mark.parametrize("as_list", [True, False])
def test_a_vector_comes_back_bit_for_bit(as_list: bool) -> None:
    vector = np.random.default_rng(1).standard_normal(4).astype("<f4")
    vector = np.asarray(vector / np.linalg.norm(vector), "<f4")
    told = json.loads(lines.encode({**CHUNK, "vector": lines.encoded_vector(vector, as_list=as_list)}))
    found = lines.chunk(told, 4, 0)
    assert found is not None
    assert found.vector.tobytes() == vector.tobytes()


def test_a_chunk_without_a_vector_is_one() -> None:
    assert lines.chunk({**CHUNK, "vector": None}, 4, 0) is None


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("ordinal", 1, "must be 0 here"),
        ("start", "0", "whole number"),
        ("start", 10, "'end' must be at least 10"),
        ("text", "", "is empty"),
        ("vector", "?", "neither base64"),
        ("vector", base64.b64encode(b"abc").decode(), "neither base64"),
        ("vector", [1, "x", 0, 0], "neither base64"),
        ("vector", {"a": 1}, "neither base64"),
        ("vector", [1.0, 0, 0], r"has shape \(3,\); its store has 4"),
        ("vector", [[1.0, 0, 0, 0]], "has shape"),
        ("vector", [1.0, 1, 0, 0], "squared length 2"),
        ("vector", [float("nan"), 0, 0, 0], "squared length nan"),
    ],
)
def test_what_is_wrong_with_a_chunk_is_named(field: str, value: Any, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        lines.chunk({**CHUNK, field: value}, 4, 0)


@pytest.mark.parametrize("line", [b"{", b"\xff", b"[]", b'"x"', b'{"type": 1}', b"{}", b"[" * 100_000])
def test_what_is_no_object_with_a_type_is_refused(line: bytes) -> None:
    with pytest.raises(Invalid):
        lines.decoded(line)


def test_a_line_is_one_line_whatever_is_in_it() -> None:
    line = lines.encode({"type": "document", "text": "a\nb\r\u2028重"})
    assert line.count(b"\n") == 1
    assert lines.decoded(line)["text"] == "a\nb\r\u2028重"
