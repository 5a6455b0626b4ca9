"""The lines of an export, one JSON object each. A document's chunks follow it; a store stands before its documents.

    {"type": "export", "format": 1, "ragagent": "0.1.0", "created_at": 1700000000}
    {"type": "store", "id": "vs_...", "tenant": "default", "name": "docs", "metadata": {}, "model": "wordllama-256",
     "dimension": 256, "chunk_tokens": 400, "overlap_tokens": 40, "created_at": 1700000000}
    {"type": "document", "store": "vs_...", "file_id": "file-...", "external_id": "a" or null, "filename": "a.md",
     "purpose": "assistants", "attributes": {}, "chunk_tokens": 400, "overlap_tokens": 40, "created_at": 1700000000,
     "status": "completed", "chunks": 1, "text": "..."}           or "base64": the bytes of a file that is not UTF-8
    {"type": "chunk", "ordinal": 0, "start": 0, "end": 9, "text": "...", "vector": "..."}
    {"type": "end", "stores": 1, "documents": 1, "chunks": 1}

`vector` is base64 of little-endian float32 of unit length, or a list of numbers; without it the document is embedded
anew. `start` and `end` are character offsets into the parsed text. An export without its end was cut off; lines that
someone made by hand need neither `export` nor `end`, and of a document only `store`, `external_id` and `text`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ragagent.engine.ingest import check_text
from ragagent.errors import Invalid
from ragagent.index.dense import unit_vectors
from ragagent.store.chunks import NewChunk
from ragagent.store.transfer import Moved

FORMAT = 1
MAX_NAME = 512  # characters of an id or a name

_WORDS = {str: "a string", int: "a whole number of at least 0", dict: "an object"}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class StoreLine:
    id: str
    tenant: str
    name: str
    metadata: Mapping[str, str]
    model: str
    dimension: int
    chunk_tokens: int
    overlap_tokens: int
    created_at: int


@dataclass(frozen=True, slots=True)
class DocumentLine:
    """A document. `chunks` counts the lines that follow; None: nobody has counted them."""

    store: str
    moved: Moved
    status: str
    chunks: int | None


def decoded(line: bytes) -> Mapping[str, Any]:
    """Return a line as the object that it is. Raises Invalid."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise Invalid(f"it is not JSON in UTF-8: {exc}") from exc
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        raise Invalid("it is no object with a 'type'", param="type")
    return found


def store(fields: Mapping[str, Any]) -> StoreLine:
    metadata = _get(fields, "metadata", dict, {})
    if not all(isinstance(value, str) for value in metadata.values()):
        raise Invalid("field 'metadata' must hold strings", param="metadata")
    return StoreLine(
        id=_name(fields, "id"),
        tenant=_name(fields, "tenant", "default"),
        name=_get(fields, "name", str, ""),
        metadata=metadata,
        model=_name(fields, "model"),
        dimension=_positive(fields, "dimension"),
        chunk_tokens=_positive(fields, "chunk_tokens", 400),
        overlap_tokens=_get(fields, "overlap_tokens", int, 0),
        created_at=_get(fields, "created_at", int, 0),
    )


def document(fields: Mapping[str, Any], owner: StoreLine, *, max_chars: int) -> DocumentLine:
    """Return a document of the store `owner`, from which it has what it does not say itself."""
    external_id = _name(fields, "external_id") if fields.get("external_id") is not None else None
    file_id = _name(fields, "file_id") if fields.get("file_id") is not None else None
    if external_id is None and file_id is None:
        raise Invalid("it has neither 'external_id' nor 'file_id'", param="external_id")
    moved = Moved(
        file_id=file_id,
        external_id=external_id,
        filename=_name(fields, "filename", external_id),
        purpose=_name(fields, "purpose", "assistants"),
        attributes=_attributes(fields),
        chunk_tokens=_positive(fields, "chunk_tokens", owner.chunk_tokens),
        overlap_tokens=_get(fields, "overlap_tokens", int, owner.overlap_tokens),
        created_at=_get(fields, "created_at", int, owner.created_at),
        data=_data(fields, is_text=external_id is not None, max_chars=max_chars),
    )
    count = _get(fields, "chunks", int) if fields.get("chunks") is not None else None
    return DocumentLine(owner.id, moved, _get(fields, "status", str, "in_progress"), count)


def chunk(fields: Mapping[str, Any], dimension: int, ordinal: int) -> NewChunk | None:
    """Return the chunk, which must be the one of that ordinal; None: it has no vector. Raises Invalid."""
    if _get(fields, "ordinal", int) != ordinal:
        raise Invalid(f"field 'ordinal' must be {ordinal} here", param="ordinal")
    start, end = _get(fields, "start", int), _get(fields, "end", int)
    if end < start:
        raise Invalid(f"field 'end' must be at least {start}, its 'start'", param="end")
    if not (text := _get(fields, "text", str)):
        raise Invalid("field 'text' is empty", param="text")
    if fields.get("vector") is None:
        return None
    return NewChunk(ordinal, start, end, _encodable(text), _vector(fields["vector"], dimension))


def encode(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def encoded_data(data: bytes) -> dict[str, str]:
    """Return the field for a file's bytes: `text` where they are one."""
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def encoded_vector(vector: np.ndarray, *, as_list: bool) -> str | list[float]:
    """Return the vector as a line has it. Numbers in a list are exact: they read back as the same float32."""
    return vector.tolist() if as_list else base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _data(fields: Mapping[str, Any], *, is_text: bool, max_chars: int) -> bytes:
    if "base64" in fields and not is_text:
        try:
            data = base64.b64decode(_get(fields, "base64", str), validate=True)
        except (binascii.Error, ValueError) as exc:
            raise Invalid("field 'base64' is not base64", param="base64") from exc
        if not data:
            raise Invalid("field 'base64' is empty", param="base64")
        return data
    text = _encodable(_get(fields, "text", str))
    if is_text:
        try:
            return check_text(text, max_chars=max_chars, param="text").encode()
        except Invalid as exc:
            raise Invalid(f"field 'text': {exc.message}", param="text") from exc
    return text.encode()


def _vector(value: Any, dimension: int) -> np.ndarray:
    try:
        if isinstance(value, str):
            found = np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4")
        else:
            found = np.array(value, dtype="<f4")
    except (ValueError, TypeError, OverflowError) as exc:
        raise Invalid("field 'vector' is neither base64 of float32 nor a list of numbers", param="vector") from exc
    if found.shape != (dimension,):
        raise Invalid(f"field 'vector' has shape {found.shape}; its store has {dimension} values", param="vector")
    try:
        unit_vectors(found, dimension)
    except Invalid as exc:
        raise Invalid(f"field 'vector': {exc.message}", param="vector") from exc
    return found


def _attributes(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = _get(fields, "attributes", dict, {})
    for key, value in found.items():
        if not isinstance(value, str | int | float | bool):
            raise Invalid(f"field 'attributes.{key}' must be a string, a number or a boolean", param="attributes")
    return found


def _name(fields: Mapping[str, Any], name: str, default: str | None = None) -> str:
    found = _get(fields, name, str, default)
    if not 0 < len(found) <= MAX_NAME or "\x00" in found:
        raise Invalid(f"field '{name}' must have 1 to {MAX_NAME} characters, none of them NUL", param=name)
    return _encodable(found)


def _positive(fields: Mapping[str, Any], name: str, default: int | None = None) -> int:
    found = _get(fields, name, int, default)
    if found < 1:
        raise Invalid(f"field '{name}' must be at least 1", param=name)
    return found


def _get(fields: Mapping[str, Any], name: str, kind: type[_T], default: _T | None = None) -> _T:
    found = fields.get(name, default)
    # A bool is an int to Python, and to nobody else. SQLite's integers end at 2^63.
    if not isinstance(found, kind) or isinstance(found, bool) or (isinstance(found, int) and not 0 <= found < 2**53):
        raise Invalid(f"field '{name}' must be {_WORDS[kind]}", param=name)
    return found


def _encodable(text: str) -> str:
    """Return the text if UTF-8 has it: JSON can spell halves of characters that it has not."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise Invalid(f"it holds half a character, {text[exc.start]!a}") from exc
    return text
