"""What a request may say. Whatever a client sends: an object of ours, or an Invalid that names a field of theirs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from starlette.requests import Request
from starlette.types import Message

from ragagent.api import schemas
from ragagent.engine.catalog import Chunking
from ragagent.errors import Invalid
from ragagent.types import Comparison, Compound, Filter

EQ = {"type": "eq", "key": "year", "value": 2024}
VALID: Mapping[type[schemas.Schema], Any] = {
    schemas.CreateStore: {
        "name": "facts",
        "metadata": {"a": "b"},
        "file_ids": ["file-1"],
        "chunking_strategy": {"type": "static", "static": {"max_chunk_size_tokens": 400, "chunk_overlap_tokens": 0}},
    },
    schemas.UpdateStore: {"name": "facts", "metadata": {"a": "b"}},
    schemas.AttachFile: {"file_id": "file-1", "attributes": {"year": 2024}, "chunking_strategy": {"type": "auto"}},
    schemas.UpdateFile: {"attributes": {"a": "x", "b": 1, "c": 0.5, "d": True}},
    schemas.CreateBatch: {"files": [{"file_id": "file-1", "attributes": {"a": 1}}]},
    schemas.Search: {
        "query": ["one", "two"],
        "filters": {"type": "and", "filters": [EQ, {"type": "in", "key": "kind", "value": ["a", 1]}]},
        "max_num_results": 5,
        "ranking_options": {"score_threshold": 0.5, "hybrid_search": {"embedding_weight": 1, "text_weight": 3}},
    },
    schemas.UpsertDocuments: {
        "store": "facts",
        "documents": [{"external_id": "x", "text": "A text.", "title": "T", "attributes": {"year": 2024}}],
    },
    schemas.DeleteDocuments: {"store": "facts", "external_ids": ["x"]},
    schemas.Embeddings: {"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 256},
    schemas.ChatCompletion: {
        "model": "ragagent",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "temperature": 0.5,
        "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"], "filters": EQ}],
        "ragagent": {"stores": ["facts"], "results": 3, "filters": EQ, "ranking_options": {"fusion": "rrf"}},
    },
}
by_schema = pytest.mark.parametrize("schema", VALID, ids=lambda schema: schema.__name__)


def read(schema: type[schemas.M], raw: bytes, **options: bool) -> schemas.M:
    async def receive() -> Message:
        return {"type": "http.request", "body": raw, "more_body": False}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    return asyncio.run(schemas.read(request, schema, **options))


def said(schema: type[schemas.M], body: Any) -> schemas.M:
    return read(schema, json.dumps(body).encode())


def refusal(schema: type[schemas.Schema], body: Any) -> Invalid:
    with pytest.raises(Invalid) as refused:
        said(schema, body)
    return refused.value


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
def test_any_json_is_read_or_refused_by_a_path_that_it_has(schema: type[schemas.Schema], data: st.DataObject) -> None:
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
def test_any_bytes_are_read_or_refused(schema: type[schemas.Schema], raw: bytes) -> None:
    try:
        read(schema, raw)
    except Invalid as exc:
        assert exc.code in ("invalid_json", "invalid_value", "missing_required_parameter")


@by_schema
def test_what_is_valid_is_read(schema: type[schemas.Schema]) -> None:
    said(schema, VALID[schema])


@by_schema
def test_unknown_fields_are_ignored(schema: type[schemas.Schema]) -> None:
    assert said(schema, {**VALID[schema], "brand_new": {"a": [1]}}) == said(schema, VALID[schema])


@by_schema
def test_a_null_is_an_absent_field(schema: type[schemas.Schema]) -> None:
    """Clients in typed languages write down every field they know."""
    optional = {name for name, field in schema.model_fields.items() if not field.is_required()}
    if schema is schemas.CreateBatch:
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
    assert said(schemas.Search, {"query": "x", **inner}).ranking_options.score_threshold == 0


def test_attributes_must_be_said_and_may_be_null() -> None:
    assert said(schemas.UpdateFile, {"attributes": None}).attributes is None
    assert refusal(schemas.UpdateFile, {}).code == "missing_required_parameter"


# Bodies


@pytest.mark.parametrize("raw", [b"", b" \n\t"])
def test_no_body_is_refused_unless_all_of_it_is_optional(raw: bytes) -> None:
    with pytest.raises(Invalid, match="no body"):
        read(schemas.Search, raw)
    assert read(schemas.CreateStore, raw, optional=True) == schemas.CreateStore()


@pytest.mark.parametrize("raw", [b"{", b"nul", b"\xff", b"[" * 100_000, b'{"a": "\\ud800"}', b"9" * 5_000])
def test_what_is_no_json_is_called_so(raw: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        read(schemas.Search, raw)
    assert (refused.value.code, refused.value.param) == ("invalid_json", None)


@pytest.mark.parametrize("body", [[], "x", 7, None, True])
def test_a_body_that_is_no_object_is_refused_without_a_field(body: Any) -> None:
    refused = refusal(schemas.Search, body)
    assert refused.param is None
    assert refused.message.startswith("The body: must be an object")


# Messages


@pytest.mark.parametrize(
    ("schema", "body", "param", "words"),
    [
        (schemas.Search, {"query": 7}, "query", "string"),
        (schemas.Search, {"query": None}, "query", "got None"),
        (schemas.Search, {"query": ["a", 7]}, "query.1", "string"),
        (schemas.Search, {"query": []}, "query", "at least 1 item"),
        (schemas.Search, {"query": "x", "ranking_options": []}, "ranking_options", "must be an object"),
        (schemas.Search, {"query": "x", "filters": 7}, "filters", "must be an object"),
        (schemas.Search, {"query": "x", "filters": {**EQ, "value": {}}}, "filters.value", "must be a string"),
        (schemas.Search, {"query": "x", "filters": {**EQ, "value": [1]}}, "filters", "takes a single value"),
        (schemas.Search, {"query": "x", "filters": {**EQ, "type": "gt", "value": True}}, "filters", "takes a number"),
        (schemas.Search, {"query": "x", "filters": {"type": "in", "key": "a", "value": [[]]}}, "filters.value.0", ""),
        (schemas.UpdateFile, {"attributes": {"str": None}}, "attributes.str", "must be a string"),
        (schemas.UpdateFile, {"attributes": {"a": "x" * 513}}, "attributes.a", "at most 512"),
        (schemas.UpdateFile, {"attributes": {"a": 2**53 + 1}}, "attributes.a", "2^53"),
        (schemas.UpdateFile, {"attributes": {"a": float("nan")}}, "attributes.a", "number"),
        (schemas.UpdateFile, {"attributes": {"a": "\0"}}, "attributes.a", "NUL"),
        (schemas.UpdateFile, {"attributes": {'"': 1}}, 'attributes."', "double quote"),
        (schemas.UpdateFile, {"attributes": {"": 1}}, "attributes.", "at least 1 character"),
        (schemas.UpdateFile, {"attributes": [1]}, "attributes", "must be an object"),
        (schemas.CreateStore, {"metadata": {"a": 1}}, "metadata.a", "string"),
        (schemas.CreateBatch, {}, None, "at least one file"),
        (schemas.CreateBatch, {"file_ids": ["a"], "files": [{"file_id": "a"}]}, None, "exclude each other"),
        (schemas.Embeddings, {"model": "m", "input": [[1, 2]]}, "input.0", "string"),
        (
            schemas.ChatCompletion,
            {"model": "m", "messages": [{"role": "user", "content": 7}]},
            "messages.0.content",
            "",
        ),
        (schemas.ChatCompletion, {"model": "m" * 257, "messages": []}, "model", "at most 256"),
    ],
)
def test_the_message_is_about_what_was_meant(
    schema: type[schemas.Schema], body: Any, param: str | None, words: str
) -> None:
    refused = refusal(schema, body)
    assert refused.param == param
    assert words in refused.message


def test_the_first_wrong_field_is_named() -> None:
    refused = refusal(schemas.Search, {"query": 7, "filters": {"type": "and", "filters": [{"type": "eq"}]}})
    assert refused.param == "query"


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        (schemas.UpdateFile, {"attributes": {str(n): None for n in range(50_000)}}),
        (schemas.CreateStore, {"metadata": {str(n): n for n in range(50_000)}}),
        (schemas.Embeddings, {"model": "m", "input": [0] * 50_000}),
        (schemas.Search, {"query": [0] * 50_000}),
        (schemas.DeleteDocuments, {"store": "s", "external_ids": [0] * 50_000}),
        (schemas.UpsertDocuments, {"store": "s", "documents": [{}] * 50_000}),
        (schemas.UpsertDocuments, {"store": "s", "documents": [{}] * 1_000}),
        (schemas.ChatCompletion, {"model": "m", "messages": [{"role": "user", "content": [{}] * 50_000}]}),
        (schemas.ChatCompletion, {"model": "m", "messages": [{"role": "user", "content": [{}] * 100}] * 100}),
        (schemas.ChatCompletion, {"model": "m", "messages": [], "tools": [{}] * 50_000}),
        (schemas.ChatCompletion, {"model": "m", "messages": [], "ragagent": {"stores": [0] * 50_000}}),
    ],
)
def test_thousands_of_mistakes_are_not_gathered(schema: type[schemas.Schema], body: Any) -> None:
    """An error each takes pydantic half a minute for a body that the server lets in."""
    with pytest.raises(Invalid) as refused:
        said(schema, body)
    cause = refused.value.__cause__
    assert isinstance(cause, ValidationError)
    assert cause.error_count() <= 5


# Filters

keys = st.text(st.characters(exclude_characters='"\0', exclude_categories=["Cs"]), min_size=1, max_size=64)
ordered = (
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
)
leaves = (
    st.tuples(st.sampled_from(["eq", "ne"]), keys, ordered | st.booleans())
    | st.tuples(st.sampled_from(["gt", "gte", "lt", "lte"]), keys, ordered)
    | st.tuples(st.sampled_from(["in", "nin"]), keys, st.lists(ordered | st.booleans(), max_size=5).map(tuple))
).map(lambda leaf: Comparison(*leaf))
trees: st.SearchStrategy[Filter] = st.recursive(
    leaves,
    lambda inner: st.builds(
        Compound, st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=4).map(tuple)
    ),
    max_leaves=20,
)


def spelt(tree: Filter) -> dict[str, Any]:
    if isinstance(tree, Compound):
        return {"type": tree.op, "filters": [spelt(part) for part in tree.filters]}
    return {
        "type": tree.op,
        "key": tree.key,
        "value": list(tree.value) if isinstance(tree.value, tuple) else tree.value,
    }


def depth(tree: Filter) -> int:
    return 1 if isinstance(tree, Comparison) else 1 + max(map(depth, tree.filters))


@given(trees)
def test_a_filter_means_what_it_says(tree: Filter) -> None:
    filters = said(schemas.Search, {"query": "x", "filters": spelt(tree)}).filters
    if depth(tree) > schemas.MAX_FILTER_DEPTH:
        with pytest.raises(Invalid, match="deep"):
            schemas.filter_tree(filters)
        return
    read_back = schemas.filter_tree(filters)
    assert read_back == tree
    assert repr(read_back) == repr(tree)  # True is not 1, 1 is not 1.0: what the cache keys on.


def test_without_filters_there_is_no_tree() -> None:
    assert schemas.filter_tree(None) is None


@pytest.mark.parametrize(
    "filters",
    [
        {"type": "and", "filters": [{"type": "or", "filters": [EQ] * 51}] * 2},
        {"type": "or", "filters": [{"type": "in", "key": "k", "value": list(range(1000))}] * 11},
    ],
)
def test_a_filter_too_large_for_one_statement_is_refused(filters: Any) -> None:
    with pytest.raises(Invalid, match="at most 100, 10000 and 8") as refused:
        schemas.filter_tree(said(schemas.Search, {"query": "x", "filters": filters}).filters)
    assert refused.value.param == "filters"


# What is computed from them


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
    asked = said(schemas.CreateStore, {"chunking_strategy": strategy})
    assert schemas.chunking_of(asked.chunking_strategy) == expected


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
    assert refusal(schemas.CreateStore, {"chunking_strategy": {"type": "static", "static": static}}).param == param


@pytest.mark.parametrize(("embedding", "words", "weight"), [(1, 1, 0.5), (0, 1, 0.0), (1, 0, 1.0), (1, 3, 0.25)])
def test_the_weights_of_a_hybrid_search_are_one_share(embedding: float, words: float, weight: float) -> None:
    asked = schemas.HybridSearch(embedding_weight=embedding, text_weight=words)
    assert asked.dense_weight == weight


def test_weights_of_nothing_are_refused() -> None:
    hybrid = {"embedding_weight": 0, "text_weight": 0}
    refused = refusal(schemas.Search, {"query": "x", "ranking_options": {"hybrid_search": hybrid}})
    assert refused.param == "ranking_options.hybrid_search"


def test_one_external_id_stands_once_in_a_request() -> None:
    document = {"external_id": "x", "text": "A text."}
    assert "'x' stands twice" in refusal(schemas.UpsertDocuments, {"store": "s", "documents": [document] * 2}).message


def test_the_parts_of_a_message_are_lines_of_one() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text"}, {"type": "text", "text": "b"}]
    message = said(schemas.ChatMessage, {"role": "developer", "content": parts}).message(0)
    assert (message.role, message.content) == ("system", "a\n\nb")


@pytest.mark.parametrize(
    "given", [{"role": "tool", "content": "x"}, {"role": "user", "content": [{"type": "image_url"}]}]
)
def test_a_message_that_is_not_text_is_refused_with_its_place(given: Any) -> None:
    with pytest.raises(Invalid, match=r"messages\.3"):
        said(schemas.ChatMessage, given).message(3)
