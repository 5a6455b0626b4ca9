"""Texts under ids of their own."""

from __future__ import annotations

from bodies import refusal
from ragagent.api.schemas.documents import UpsertDocuments


def test_one_external_id_stands_once_in_a_request() -> None:
    document = {"external_id": "x", "text": "A text."}
    assert "'x' stands twice" in refusal(UpsertDocuments, {"store": "s", "documents": [document] * 2}).message
