"""What is asked of an answer by chats and responses alike: by OpenAI's file_search tool, and by our own field."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ragagent.api.schemas.body import Schema
from ragagent.api.schemas.fields import Name, StoreNames
from ragagent.api.schemas.search import AnyFilter, RankingOptions


class FileSearchTool(Schema):
    type: Name
    vector_store_ids: StoreNames = Field(default_factory=list)
    max_num_results: Annotated[int, Field(ge=1, le=50)] | None = None
    filters: AnyFilter | None = None
    ranking_options: RankingOptions = RankingOptions()


class Overrides(Schema):
    """What `extra_body={"ragagent": {...}}` may say."""

    stores: StoreNames | None = None
    results: Annotated[int, Field(ge=1, le=50)] | None = None
    filters: AnyFilter | None = None
    ranking_options: RankingOptions | None = None


class Asking(Schema):
    model: Name
    stream: bool = False
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    tools: Annotated[list[FileSearchTool], Field(max_length=16, fail_fast=True)] = Field(default_factory=list)
    ragagent: Overrides = Overrides()
