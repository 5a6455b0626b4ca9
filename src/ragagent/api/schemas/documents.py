"""Texts under the caller's own ids."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictStr, model_validator

from ragagent.api.schemas.body import Schema
from ragagent.api.schemas.fields import AttributeMap, ExternalId, Name, Text


class NewText(Schema):
    external_id: ExternalId
    text: StrictStr | None = None
    url: StrictStr | None = None
    title: Annotated[Text, Field(min_length=1, max_length=512)] | None = None
    attributes: AttributeMap = Field(default_factory=dict)


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
