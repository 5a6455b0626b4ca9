"""What a request may say. Whatever a client sends: an object of ours, or an Invalid that names a field of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bodies import read, refusal, said
from ragagent.api.schemas.body import Schema
from ragagent.api.schemas.chat import ChatCompletion
from ragagent.api.schemas.documents import DeleteDocuments, UpsertDocuments
from ragagent.api.schemas.embeddings import Embeddings
from ragagent.api.schemas.responses import CreateResponse
from ragagent.api.schemas.search import Search
from ragagent.api.schemas.vector_stores import AttachFile, CreateBatch, CreateStore, UpdateFile, UpdateStore
from ragagent.errors import Invalid

EQ = {"type": "eq", "key": "year", "value": 2024}
VALID: Mapping[type[Schema], Any] = {
    CreateStore: {
        "name": "facts",
        "metadata": {"a": "b"},
        "file_ids": ["file-1"],
        "chunking_strategy": {"type": "static", "static": {"max_chunk_size_tokens": 400, "chunk_overlap_tokens": 0}},
    },
    UpdateStore: {"name": "facts", "metadata": {"a": "b"}},
    AttachFile: {"file_id": "file-1", "attributes": {"year": 2024}, "chunking_strategy": {"type": "auto"}},
    UpdateFile: {"attributes": {"a": "x", "b": 1, "c": 0.5, "d": True}},
    CreateBatch: {"files": [{"file_id": "file-1", "attributes": {"a": 1}}]},
    Search: {
        "query": ["one", "two"],
        "filters": {"type": "and", "filters": [EQ, {"type": "in", "key": "kind", "value": ["a", 1]}]},
        "max_num_results": 5,
        "ranking_options": {"score_threshold": 0.5, "hybrid_search": {"embedding_weight": 1, "text_weight": 3}},
    },
    UpsertDocuments: {
        "store": "facts",
        "documents": [{"external_id": "x", "text": "A text.", "title": "T", "attributes": {"year": 2024}}],
    },
    DeleteDocuments: {"store": "facts", "external_ids": ["x"]},
    Embeddings: {"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 256},
    ChatCompletion: {
        "model": "ragagent",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "temperature": 0.5,
        "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"], "filters": EQ}],
        "ragagent": {"stores": ["facts"], "results": 3, "filters": EQ, "ranking_options": {"fusion": "rrf"}},
    },
    CreateResponse: {
        "model": "ragagent",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "Why?"}]}],
        "instructions": "Be brief.",
        "previous_response_id": "resp_1",
        "store": False,
        "max_output_tokens": 5,
        "metadata": {"a": "b"},
        "include": ["file_search_call.results"],
        "text": {"format": {"type": "text"}},
        "tool_choice": {"type": "file_search"},
        "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"], "filters": EQ}],
    },
}
by_schema = pytest.mark.parametrize("schema", VALID, ids=lambda schema: schema.__name__)


def leads_somewhere(path: str, given: Any) -> bool:
    """Return whether the dotted path stands in the JSON. Keys may have dots of their own."""
    if path == "":
        return True
    parts: Sequence[tuple[str, Any]] = ()
    if isinstance(given, dict):
        parts = [(key, value) for key, value in given.items()]
    elif isinstance(given, list):
        parts = [(str(position), value) for position, value in enumerate(given)]
    return any(
        path == key or (path.startswith(f"{key}.") and leads_somewhere(path[len(key) + 1 :], value))
        for key, value in parts
    )


# Everything that is JSON

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
words = st.sampled_from(
    ["type", "key", "value", "filters", "str", "comparison", "static", "eq", "and", "in", "auto", "\x00"]
)
values = st.recursive(
    scalars | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn, whole: Any) -> Any:
    """Return a valid request with one of its parts replaced, added or taken away."""
    if not isinstance(whole, dict | list) or not whole or draw(st.integers(0, 3)) == 0:
        return draw(values)
    copy: Any = whole.copy()
    key = draw(st.sampled_from(sorted(copy) if isinstance(copy, dict) else list(range(len(copy)))))
    action = draw(st.sampled_from(["deeper", "deeper", "deeper", "remove", "add"]))
    if action == "deeper":
        copy[key] = draw(damaged(copy[key]))
    elif action == "remove":
        del copy[key]
    elif isinstance(copy, dict):
        copy[draw(words | st.text(max_size=5))] = draw(values)
    else:
        copy.append(draw(values))
    return copy


@by_schema
@given(st.data())
def test_any_json_is_read_or_refused_by_a_path_that_it_has(schema: type[Schema], data: st.DataObject) -> None:
    body = data.draw(damaged(VALID[schema]))
    try:
        assert isinstance(said(schema, body), schema)
    except Invalid as exc:
        assert exc.message
        assert len(exc.message) < 1_000
        if exc.code == "missing_required_parameter":
            assert exc.param
            assert leads_somewhere(exc.param.rpartition(".")[0], body)
            assert not leads_somewhere(exc.param, body)
        elif exc.param is not None:
            assert exc.param
            assert leads_somewhere(exc.param, body)


@by_schema
@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(schema: type[Schema], raw: bytes) -> None:
    try:
        read(schema, raw)
    except Invalid as exc:
        assert exc.code in ("invalid_json", "invalid_value", "missing_required_parameter")


@by_schema
def test_what_is_valid_is_read(schema: type[Schema]) -> None:
    said(schema, VALID[schema])


@by_schema
def test_unknown_fields_are_ignored(schema: type[Schema]) -> None:
    assert said(schema, {**VALID[schema], "brand_new": {"a": [1]}}) == said(schema, VALID[schema])


@by_schema
def test_a_null_is_an_absent_field(schema: type[Schema]) -> None:
    """Clients in typed languages write down every field they know."""
    optional = {name for name, field in schema.model_fields.items() if not field.is_required()}
    if schema is CreateBatch:
        optional.discard("files")  # The one of two that there must be.
    needed = {name: value for name, value in VALID[schema].items() if name not in optional}
    assert said(schema, {**needed, **dict.fromkeys(optional)}) == said(schema, needed)


@pytest.mark.parametrize(
    "inner",
    [
        {"ranking_options": None, "filters": None, "max_num_results": None, "rewrite_query": None},
        {"ranking_options": {"ranker": None, "score_threshold": None, "hybrid_search": None, "fusion": None}},
        {"ranking_options": {"hybrid_search": {"embedding_weight": None, "text_weight": None}}},
    ],
)
def test_a_null_inside_is_an_absent_field_too(inner: dict[str, Any]) -> None:
    assert said(Search, {"query": "x", **inner}).ranking_options.score_threshold == 0


def test_attributes_must_be_said_and_may_be_null() -> None:
    assert said(UpdateFile, {"attributes": None}).attributes is None
    assert refusal(UpdateFile, {}).code == "missing_required_parameter"


# Bodies


@pytest.mark.parametrize("raw", [b"", b" \n\t"])
def test_no_body_is_refused_unless_all_of_it_is_optional(raw: bytes) -> None:
    with pytest.raises(Invalid, match="no body"):
        read(Search, raw)
    assert read(CreateStore, raw, optional=True) == CreateStore()


@pytest.mark.parametrize("raw", [b"{", b"nul", b"\xff", b"[" * 100_000, b'{"a": "\\ud800"}', b"9" * 5_000])
def test_what_is_no_json_is_called_so(raw: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        read(Search, raw)
    assert (refused.value.code, refused.value.param) == ("invalid_json", None)


@pytest.mark.parametrize("body", [[], "x", 7, None, True])
def test_a_body_that_is_no_object_is_refused_without_a_field(body: Any) -> None:
    refused = refusal(Search, body)
    assert refused.param is None
    assert refused.message.startswith("The body: must be an object")


# Messages


@pytest.mark.parametrize(
    ("schema", "body", "param", "words"),
    [
        (Search, {"query": 7}, "query", "string"),
        (Search, {"query": None}, "query", "got None"),
        (Search, {"query": ["a", 7]}, "query.1", "string"),
        (Search, {"query": []}, "query", "at least 1 item"),
        (Search, {"query": "x", "ranking_options": []}, "ranking_options", "must be an object"),
        (Search, {"query": "x", "filters": 7}, "filters", "must be an object"),
        (Search, {"query": "x", "filters": {**EQ, "value": {}}}, "filters.value", "must be a string"),
        (Search, {"query": "x", "filters": {**EQ, "value": [1]}}, "filters", "takes a single value"),
        (Search, {"query": "x", "filters": {**EQ, "type": "gt", "value": True}}, "filters", "takes a number"),
        (Search, {"query": "x", "filters": {"type": "in", "key": "a", "value": [[]]}}, "filters.value.0", ""),
        (UpdateFile, {"attributes": {"str": None}}, "attributes.str", "must be a string"),
        (UpdateFile, {"attributes": {"a": "x" * 513}}, "attributes.a", "at most 512"),
        (UpdateFile, {"attributes": {"a": 2**53 + 1}}, "attributes.a", "2^53"),
        (UpdateFile, {"attributes": {"a": float("nan")}}, "attributes.a", "number"),
        (UpdateFile, {"attributes": {"a": "\0"}}, "attributes.a", "NUL"),
        (UpdateFile, {"attributes": {'"': 1}}, 'attributes."', "double quote"),
        (UpdateFile, {"attributes": {"": 1}}, "attributes.", "at least 1 character"),
        (UpdateFile, {"attributes": [1]}, "attributes", "must be an object"),
        (CreateStore, {"metadata": {"a": 1}}, "metadata.a", "string"),
        (CreateBatch, {}, None, "at least one file"),
        (CreateBatch, {"file_ids": ["a"], "files": [{"file_id": "a"}]}, None, "exclude each other"),
        (Embeddings, {"model": "m", "input": [[1, 2]]}, "input.0", "string"),
        (
            ChatCompletion,
            {"model": "m", "messages": [{"role": "user", "content": 7}]},
            "messages.0.content",
            "",
        ),
        (ChatCompletion, {"model": "m" * 257, "messages": []}, "model", "at most 256"),
    ],
)
def test_the_message_is_about_what_was_meant(schema: type[Schema], body: Any, param: str | None, words: str) -> None:
    refused = refusal(schema, body)
    assert refused.param == param
    assert words in refused.message


def test_the_first_wrong_field_is_named() -> None:
    refused = refusal(Search, {"query": 7, "filters": {"type": "and", "filters": [{"type": "eq"}]}})
    assert refused.param == "query"


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        (UpdateFile, {"attributes": {str(n): None for n in range(50_000)}}),
        (CreateStore, {"metadata": {str(n): n for n in range(50_000)}}),
        (Embeddings, {"model": "m", "input": [0] * 50_000}),
        (Search, {"query": [0] * 50_000}),
        (DeleteDocuments, {"store": "s", "external_ids": [0] * 50_000}),
        (UpsertDocuments, {"store": "s", "documents": [{}] * 50_000}),
        (UpsertDocuments, {"store": "s", "documents": [{}] * 1_000}),
        (ChatCompletion, {"model": "m", "messages": [{"role": "user", "content": [{}] * 50_000}]}),
        (ChatCompletion, {"model": "m", "messages": [{"role": "user", "content": [{}] * 100}] * 100}),
        (ChatCompletion, {"model": "m", "messages": [], "tools": [{}] * 50_000}),
        (ChatCompletion, {"model": "m", "messages": [], "ragagent": {"stores": [0] * 50_000}}),
        (CreateResponse, {"model": "m", "input": [0] * 50_000}),
        (CreateResponse, {"model": "m", "input": [{"role": "user", "content": [{}] * 100}] * 100}),
        (CreateResponse, {"model": "m", "input": "x", "include": ["x"] * 50_000}),
    ],
)
def test_thousands_of_mistakes_are_not_gathered(schema: type[Schema], body: Any) -> None:
    """An error each takes pydantic half a minute for a body that the server lets in."""
    with pytest.raises(Invalid) as refused:
        said(schema, body)
    cause = refused.value.__cause__
    assert isinstance(cause, ValidationError)
    assert cause.error_count() <= 5
