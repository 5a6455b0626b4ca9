"""Models: the profiles, and the embedder."""

from __future__ import annotations

import pytest
from openai.types import Model

from application import Api, conforms

pytestmark = pytest.mark.anyio


async def test_profiles_and_embedder_are_listed_as_the_client_reads_them(api: Api) -> None:
    listed = await api.json("GET", "/v1/models")
    assert listed["object"] == "list"
    assert [conforms(Model, item).id for item in listed["data"]] == ["ragagent", "wordllama-256"]
    assert conforms(Model, await api.json("GET", "/v1/models/ragagent")).owned_by == "ragagent"


@pytest.mark.parametrize("name", ["gpt-4", "org/model", "ragagen"])
async def test_an_unknown_model_is_named(api: Api, name: str) -> None:
    error = await api.refusal(404, "GET", f"/v1/models/{name}")
    assert error["code"] == "model_not_found"
    assert name in error["message"]
