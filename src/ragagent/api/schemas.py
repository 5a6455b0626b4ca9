"""JSON to types: what each request may say, field by field.

Unknown fields are ignored, and a null is an absent field, as OpenAI's API has it. Everything that a client may repeat
has a bound that is checked before its parts are: pydantic collects errors, and a million of them stop the event loop.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    StrictStr,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, from_json
from starlette.requests import Request

from ragagent.engine.catalog import Chunking
from ragagent.errors import Invalid
from ragagent.types import AttributeValue, Comparison, Compound, Filter, Message

MAX_FILTER_LEAVES = 100
MAX_FILTER_DEPTH = 8
MAX_FILTER_VALUES = 10_000  # SQLite takes 32,766 parameters in a statement
MAX_PAIRS = 16
MAX_STRING = 512
MAX_WHOLE = 2**53  # Beyond it a number is another one for whoever reads JSON as JavaScript does.


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not hold a NUL character")
    return text


def _attribute_key(key: str) -> str:
    if '"' in key:  # It would end the quoted name in a JSON path.
        raise ValueError("must not hold a double quote")
    return _no_nul(key)


def _scalar(value: Any) -> AttributeValue:
    """Take what an attribute may be. One function, not a union: that would report why it is not each of four types."""
    if isinstance(value, str) and len(value) <= MAX_STRING:
        return _no_nul(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int) and abs(value) <= MAX_WHOLE:  # or a boolean
        return value
    raise ValueError(
        f"must be a string of at most {MAX_STRING} characters, a number (a whole one within ±2^53), or a boolean"
    )


def _few(given: Any) -> Any:
    if not isinstance(given, dict):
        raise ValueError("must be an object")
    if len(given) > MAX_PAIRS:
        raise ValueError(f"must hold at most {MAX_PAIRS} pairs")
    return given


Text = Annotated[StrictStr, AfterValidator(_no_nul)]
Name = Annotated[Text, Field(min_length=1, max_length=256)]
ExternalId = Annotated[Text, Field(min_length=1, max_length=512)]
StoreNames = Annotated[list[Name], Field(max_length=100, fail_fast=True)]
AttributeKey = Annotated[StrictStr, Field(min_length=1, max_length=64), AfterValidator(_attribute_key)]
Scalar = Annotated[AttributeValue, PlainValidator(_scalar)]
AttributeMap = Annotated[dict[AttributeKey, Scalar], BeforeValidator(_few)]
Metadata = Annotated[
    dict[Annotated[Text, Field(max_length=64)], Annotated[Text, Field(max_length=MAX_STRING)]], BeforeValidator(_few)
]


class Schema(BaseModel):
    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        """Drop the nulls of fields that have a default; a field that must be given says itself if it may be null."""
        if not isinstance(given, dict):
            raise ValueError("must be an object")
        required = {name for name, field in cls.model_fields.items() if field.is_required()}
        return {key: value for key, value in given.items() if value is not None or key in required}


M = TypeVar("M", bound=Schema)


async def read(request: Request, schema: type[M], *, optional: bool = False) -> M:
    """Return the request's JSON body. Raises Invalid that names the field and the value."""
    raw = await request.body()
    if not raw.strip():
        if optional:
            return schema()
        raise Invalid("The request has no body; send a JSON object.", code="invalid_json")
    try:
        return schema.model_validate_json(raw)
    except ValidationError as exc:
        raise invalid(exc, raw) from exc


def invalid(exc: ValidationError, raw: bytes) -> Invalid:
    """Return the error as users know it: the path of the field in their own JSON, what it should be, what it is."""
    errors = exc.errors(include_url=False, include_context=False)
    if errors[0]["type"] == "json_invalid":
        return Invalid(
            f"The body is not valid JSON: {errors[0]['msg'].removeprefix('Invalid JSON: ')}.", code="invalid_json"
        )
    path, error = _most_telling(errors, from_json(raw))
    name = ".".join(path)
    if error["type"] == "missing":
        return Invalid(f"'{name}' is missing.", param=name, code="missing_required_parameter")
    message = error["msg"].removeprefix("Value error, ")
    where = f"'{name}'" if path else "The body"
    return Invalid(f"{where}: {message[:1].lower()}{message[1:]} (got {_shown(error['input'])}).", param=name or None)


def _most_telling(errors: Sequence[ErrorDetails], given: Any) -> tuple[list[str], ErrorDetails]:
    """Return the first field with an error, and of its errors the one of the branch that the client meant.

    A union reports every branch: the one that came furthest is meant, or else one that found the type right.
    """
    found = [(_path(error, given), error) for error in errors]
    first, _ = found[0]
    same_field = [(path, error) for path, error in found if path[: len(first)] == first]
    return max(same_field, key=lambda item: (len(item[0]), not item[1]["type"].endswith("_type")))


def _path(error: ErrorDetails, given: Any) -> list[str]:
    """Return the parts of pydantic's location that the request has too: the others name branches of unions."""
    path: list[str] = []
    for part in error["loc"]:
        try:
            given = given[part]
        except (LookupError, TypeError):  # a branch's name
            continue
        path.append(str(part))
    return [*path, str(error["loc"][-1])] if error["type"] == "missing" else path


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60


def _shown(value: Any) -> str:
    return _short.repr(value)


class ComparisonFilter(Schema):
    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: AttributeKey
    value: Scalar | Annotated[list[Scalar], Field(max_length=1000, fail_fast=True)]

    @model_validator(mode="after")
    def _value_fits(self) -> ComparisonFilter:
        if isinstance(self.value, list) != (self.type in ("in", "nin")):
            wanted = "a list" if self.type in ("in", "nin") else "a single value"
            raise ValueError(f"'{self.type}' takes {wanted} as its value")
        if self.type in ("gt", "gte", "lt", "lte") and isinstance(self.value, bool):
            raise ValueError(f"'{self.type}' takes a number or a string as its value")
        return self

    def tree(self) -> Filter:
        value: AttributeValue | tuple[AttributeValue, ...]
        value = tuple(self.value) if isinstance(self.value, list) else self.value
        return Comparison(self.type, self.key, value)


class CompoundFilter(Schema):
    type: Literal["and", "or"]
    filters: Annotated[list[AnyFilter], Field(min_length=1, max_length=MAX_FILTER_LEAVES, fail_fast=True)]

    def tree(self) -> Filter:
        return Compound(self.type, tuple(part.tree() for part in self.filters))


def _filter_kind(given: Any) -> str:
    kind = given.get("type") if isinstance(given, dict) else getattr(given, "type", None)
    return "compound" if kind in ("and", "or") else "comparison"


AnyFilter = Annotated[
    Annotated[ComparisonFilter, Tag("comparison")] | Annotated[CompoundFilter, Tag("compound")],
    Discriminator(_filter_kind),
]


def filter_tree(filters: ComparisonFilter | CompoundFilter | None) -> Filter | None:
    if filters is None:
        return None
    tree = filters.tree()
    leaves, values, depth = _size(tree)
    if leaves > MAX_FILTER_LEAVES or values > MAX_FILTER_VALUES or depth > MAX_FILTER_DEPTH:
        raise Invalid(
            f"The filter has {leaves} comparisons with {values} values, {depth} deep; at most {MAX_FILTER_LEAVES}, "
            f"{MAX_FILTER_VALUES} and {MAX_FILTER_DEPTH} are allowed.",
            param="filters",
        )
    return tree


def _size(tree: Filter) -> tuple[int, int, int]:
    """Return how many comparisons there are, with how many values, and how deep they stand."""
    if isinstance(tree, Comparison):
        return 1, len(tree.value) if isinstance(tree.value, tuple) else 1, 1
    leaves, values, depths = zip(*map(_size, tree.filters), strict=True)
    return sum(leaves), sum(values), 1 + max(depths)


class HybridSearch(Schema):
    embedding_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1
    text_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1

    @model_validator(mode="after")
    def _one_counts(self) -> HybridSearch:
        if self.embedding_weight + self.text_weight == 0:
            raise ValueError("at least one of the weights must be above zero")
        return self

    @property
    def dense_weight(self) -> float:
        return self.embedding_weight / (self.embedding_weight + self.text_weight)


class RankingOptions(Schema):
    ranker: str | None = None
    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    hybrid_search: HybridSearch | None = None
    fusion: Literal["convex", "rrf"] | None = None  # ours

    @property
    def dense_weight(self) -> float | None:
        return self.hybrid_search.dense_weight if self.hybrid_search else None


class StaticChunking(Schema):
    max_chunk_size_tokens: Annotated[int, Field(ge=100, le=4096)] = 800
    chunk_overlap_tokens: Annotated[int, Field(ge=0)] = 400

    @model_validator(mode="after")
    def _overlap_fits(self) -> StaticChunking:
        if self.chunk_overlap_tokens * 2 > self.max_chunk_size_tokens:
            raise ValueError("chunk_overlap_tokens must be at most half of max_chunk_size_tokens")
        return self


class ChunkingStrategy(Schema):
    type: Literal["auto", "static"]
    static: StaticChunking | None = None

    @model_validator(mode="after")
    def _static_is_given(self) -> ChunkingStrategy:
        if self.type == "static" and self.static is None:
            raise ValueError("'static' is missing")
        return self

    @property
    def chunking(self) -> Chunking | None:
        if self.static is None or self.type == "auto":
            return None
        return Chunking(self.static.max_chunk_size_tokens, self.static.chunk_overlap_tokens)


def chunking_of(strategy: ChunkingStrategy | None) -> Chunking | None:
    return strategy.chunking if strategy else None


class CreateStore(Schema):
    name: Annotated[Text, Field(max_length=256)] | None = None
    metadata: Metadata | None = None
    file_ids: Annotated[list[Name], Field(max_length=500, fail_fast=True)] = []
    chunking_strategy: ChunkingStrategy | None = None
    expires_after: Any = None


class UpdateStore(Schema):
    name: Annotated[Text, Field(max_length=256)] | None = None
    metadata: Metadata | None = None
    expires_after: Any = None


class AttachFile(Schema):
    file_id: Name
    attributes: AttributeMap | None = None
    chunking_strategy: ChunkingStrategy | None = None


class UpdateFile(Schema):
    attributes: AttributeMap | None


class CreateBatch(Schema):
    file_ids: Annotated[list[Name], Field(max_length=2000, fail_fast=True)] | None = None
    files: Annotated[list[AttachFile], Field(max_length=2000, fail_fast=True)] | None = None
    attributes: AttributeMap | None = None
    chunking_strategy: ChunkingStrategy | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> CreateBatch:
        if not self.file_ids and not self.files:
            raise ValueError("'file_ids' or 'files' must name at least one file")
        if self.file_ids and self.files:
            raise ValueError("'file_ids' and 'files' exclude each other")
        return self


class Search(Schema):
    query: Text | Annotated[list[Text], Field(min_length=1, max_length=16, fail_fast=True)]
    filters: AnyFilter | None = None
    max_num_results: Annotated[int, Field(ge=1, le=50)] = 10
    ranking_options: RankingOptions = RankingOptions()
    rewrite_query: bool = False


class NewText(Schema):
    external_id: ExternalId
    text: StrictStr | None = None
    url: StrictStr | None = None
    title: Annotated[Text, Field(min_length=1, max_length=512)] | None = None
    attributes: AttributeMap = {}


class UpsertDocuments(Schema):
    store: Name
    documents: Annotated[list[NewText], Field(min_length=1, max_length=1000, fail_fast=True)]

    @model_validator(mode="after")
    def _ids_differ(self) -> UpsertDocuments:
        seen: set[str] = set()
        for document in self.documents:
            if document.external_id in seen:
                raise ValueError(f"external_id '{document.external_id}' stands twice in one request")
            seen.add(document.external_id)
        return self


class DeleteDocuments(Schema):
    store: Name
    external_ids: Annotated[list[ExternalId], Field(min_length=1, max_length=1000, fail_fast=True)]


class Embeddings(Schema):
    model: Name
    input: StrictStr | Annotated[list[StrictStr], Field(min_length=1, max_length=2048, fail_fast=True)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class ContentPart(Schema):
    type: Name
    text: StrictStr | None = None


class ChatMessage(Schema):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: StrictStr | Annotated[list[ContentPart], Field(max_length=1000, fail_fast=True)] | None = None

    def message(self, position: int) -> Message:
        """Return it as a plain message. Raises Invalid for what is not text."""
        if self.role in ("tool", "function"):
            raise Invalid(f"'messages.{position}.role': '{self.role}' is not supported.", param="messages")
        text = self.content or ""
        if isinstance(text, list):
            for part in text:
                if part.type != "text":
                    raise Invalid(
                        f"'messages.{position}.content': parts of type '{part.type}' are not supported, only 'text'.",
                        param="messages",
                    )
            text = "\n".join(part.text or "" for part in text)
        role: Literal["system", "user", "assistant"] = "system"
        if self.role == "user" or self.role == "assistant":
            role = self.role
        return Message(role, text)


class FileSearchTool(Schema):
    type: Name
    vector_store_ids: StoreNames = []
    max_num_results: Annotated[int, Field(ge=1, le=50)] | None = None
    filters: AnyFilter | None = None
    ranking_options: RankingOptions = RankingOptions()


class StreamOptions(Schema):
    include_usage: bool = False


class Overrides(Schema):
    """What `extra_body={"ragagent": {...}}` may say."""

    stores: StoreNames | None = None
    results: Annotated[int, Field(ge=1, le=50)] | None = None
    filters: AnyFilter | None = None
    ranking_options: RankingOptions | None = None


class ChatCompletion(Schema):
    model: Name
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000, fail_fast=True)]
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None  # its name until 2024, which most servers and clients keep
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    n: int = 1
    tools: Annotated[list[FileSearchTool], Field(max_length=16, fail_fast=True)] = []
    ragagent: Overrides = Overrides()
