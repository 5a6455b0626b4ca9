"""What crosses the floors: frozen values, no behaviour beyond their own arithmetic.

Ids: `store_id` is `vs_...`, `file_id` is `file-...` (OpenAI's shapes, text); `document_id` and `chunk_id` are SQLite
row ids (int64), the only keys that the index knows. Times are Unix seconds. Vectors are float32, unit length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

AttributeValue = str | float | int | bool
Attributes = Mapping[str, AttributeValue]
Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One leaf of a filter tree, in OpenAI's words. `value` is a list for `in` and `nin`, a scalar otherwise."""

    op: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: str
    value: AttributeValue | tuple[AttributeValue, ...]


@dataclass(frozen=True, slots=True)
class Compound:
    op: Literal["and", "or"]
    filters: tuple[Filter, ...]


Filter = Comparison | Compound


@dataclass(frozen=True, slots=True)
class Page:
    """OpenAI's list cursors: at most `limit` items that stand after (or before) the item of that id."""

    limit: int = 20
    after: str | None = None
    before: str | None = None
    order: Literal["asc", "desc"] = "desc"


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much a key may ask for; 0: without limit, None: as the configuration says for every key."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_answers: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the tenant, the stores that the key is bound to (None: every store of the tenant), and its limits."""

    tenant: str = "default"
    key_id: str | None = None
    stores: frozenset[str] | None = None
    allowance: Allowance = Allowance()

    def may_use(self, store_id: str) -> bool:
        return self.stores is None or store_id in self.stores


class EmbeddingSpace(NamedTuple):
    """What makes two vectors comparable."""

    model: str
    dimension: int

    def __str__(self) -> str:
        return f"{self.model}/{self.dimension}"


def index_name(store_id: str, edition: int) -> str:
    """Return the name of an index, one path segment."""
    return f"{store_id}-{edition}" if edition else store_id


@dataclass(frozen=True, slots=True)
class VectorStore:
    """A vector store: a named collection with an index of its own. `seq` is that of the last write that touched it."""

    id: str
    tenant: str
    name: str
    metadata: Mapping[str, str]
    model: str
    dimension: int
    chunk_tokens: int
    overlap_tokens: int
    created_at: int
    seq: int
    slot: int = 0  # which of SQLite's two tables of vectors holds those of `model`
    edition: int = 0  # which of its indexes is searched; it changes when one is built beside it and takes its place
    is_indexed: bool = False  # its index has been made once: where it is missing, it was lost

    @property
    def space(self) -> EmbeddingSpace:
        return EmbeddingSpace(self.model, self.dimension)

    @property
    def index(self) -> str:
        """The name of its index."""
        return index_name(self.id, self.edition)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many documents stand in each state, and the bytes that the completed ones use."""

    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    usage_bytes: int = 0

    @property
    def total(self) -> int:
        return self.in_progress + self.completed + self.failed + self.cancelled


@dataclass(frozen=True, slots=True)
class File:
    """What was uploaded, without its bytes."""

    id: str
    tenant: str
    filename: str
    purpose: str
    bytes: int
    sha256: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Document:
    """A file in a vector store. Texts stored by the native route have an `external_id`; attached files have none."""

    id: int
    store_id: str
    file_id: str
    external_id: str | None
    batch_id: str | None
    attributes: Attributes
    status: str
    error_code: str | None
    error_message: str | None
    chunk_tokens: int
    overlap_tokens: int
    usage_bytes: int
    created_at: int
    seq: int

    def visible_status(self, visible_seq: int) -> str:
        """Return the state a user may rely on: a document is completed when a search can find it."""
        return "in_progress" if self.status == "completed" and self.seq > visible_seq else self.status


@dataclass(frozen=True, slots=True)
class Job:
    """A document's way into its store. `status` is the stage while it is under way, then what became of it.

    `beat_at` is when its holder, the process at work on it, was last heard of; None: nobody is at work on it.
    """

    document_id: int
    store_id: str
    file_id: str
    filename: str
    external_id: str | None
    bytes: int
    status: Literal["queued", "parsing", "embedding", "publishing", "completed", "failed", "cancelled"]
    chunks_done: int
    chunks_total: int  # 0: not known yet
    attempts: int
    created_at: int
    since: float
    due_at: float
    error_code: str | None
    error_message: str | None
    holder_pid: int | None
    holder_start: int | None
    beat_at: float | None
    seq: int

    @property
    def percent(self) -> float:
        """The share of its chunks that have their vectors: nothing else takes long."""
        if self.status in ("publishing", "completed"):
            return 100.0
        return round(100 * self.chunks_done / self.chunks_total, 1) if self.chunks_total else 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Files that were attached together."""

    id: str
    store_id: str
    created_at: int
    cancelled_at: int | None


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk as the index knows it: its id, the fused score in 0..1, each leg's raw score (None: not found by it)."""

    chunk_id: int
    score: float
    dense: float | None = None
    lexical: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """A retrieved chunk with its text. `start` and `end` are character offsets into the parsed text of the file."""

    chunk_id: int
    store_id: str
    file_id: str
    filename: str
    ordinal: int
    text: str
    start: int
    end: int
    attributes: Attributes
    score: float
    dense: float | None = None
    lexical: float | None = None


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said, and what was answered. It is kept whole or not at all.

    `messages` is what the client said in this turn, without its instructions. "incomplete": the answer was cut at its
    bound of tokens. `payload` is JSON that the API keeps with it, and that nobody else reads.
    """

    id: str
    created_at: int
    messages: tuple[Message, ...]
    answer: str
    status: Literal["completed", "incomplete"] = "completed"
    payload: bytes = b"{}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """All that a generator may use: the question, the evidence in rank order ([1] first), the same as chat messages."""

    question: str
    language: Language
    evidence: tuple[Evidence, ...]
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Citation:
    """`answer[start_index:end_index]` is supported by `quote`, which stands verbatim in the text of chunk `chunk_id`.

    `source_start` and `source_end` are offsets of the quote into the parsed text of the file.
    """

    file_id: str
    filename: str
    chunk_id: int
    quote: str
    start_index: int
    end_index: int
    source_start: int
    source_end: int
    score: float


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer. `evidence_state` is "none" when the gate refused: then there is no citation."""

    text: str
    citations: tuple[Citation, ...]
    evidence_state: Literal["found", "none"]
    model: str
    usage: Usage = Usage()
    finish_reason: Literal["stop", "length"] = "stop"
    generations: Mapping[str, int] = field(default_factory=dict)


class Erasure(NamedTuple):
    """What of a store no cache may keep: values read before its write `removed`, and those read from an index that did
    not show its write `replaced` yet. `number` orders the erasures of all stores.
    """

    number: int
    tenant: str
    store_id: str
    removed: int
    replaced: int


JSON = Mapping[str, Any]
