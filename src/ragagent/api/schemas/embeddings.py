"""Texts to embed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictStr

from ragagent.api.schemas.body import Schema
from ragagent.api.schemas.fields import Name


class Embeddings(Schema):
    model: Name
    input: StrictStr | Annotated[list[StrictStr], Field(min_length=1, max_length=2048, fail_fast=True)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
