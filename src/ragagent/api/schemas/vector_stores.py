"""Vector stores, and the files in them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ragagent.api.schemas.body import Schema
from ragagent.api.schemas.fields import AttributeMap, Metadata, Name, Text
from ragagent.engine.catalog import Chunking


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
    file_ids: Annotated[list[Name], Field(max_length=500, fail_fast=True)] = Field(default_factory=list)
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
