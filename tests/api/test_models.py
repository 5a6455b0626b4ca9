"""Models are the profiles and the embedder."""

from __future__ import annotations

import dataclasses

import httpx
import pytest
from openai.pagination import SyncPage
from openai.types import Model

from application import Api, conforms
from ragagent import config
from ragagent.api.app import build

pytestmark = pytest.mark.anyio


async def test_the_list_is_the_clients_own(api: Api) -> None:
    page = conforms(SyncPage[Model], await api.http.get("/v1/models"))
    assert [model.id for model in page.data] == ["ragagent", "wordllama-256"]
    assert {model.owned_by for model in page.data} == {"ragagent"}


async def test_each_of_the_list_can_be_retrieved(api: Api) -> None:
    for shown in (await api.json("GET", "/v1/models"))["data"]:
        assert conforms(Model, await api.http.get(f"/v1/models/{shown['id']}")).model_dump(exclude_none=True) == shown


@pytest.mark.parametrize("name", ["gpt-4", "ragagent/x", "RAGAGENT", "ragagen"])
async def test_another_model_is_not_found(api: Api, name: str) -> None:
    error = await api.refusal(404, "GET", f"/v1/models/{name}")
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert f"'{name}'" in error["message"]


async def test_a_profile_may_have_a_slash_in_its_name(api: Api) -> None:
    """As models of other servers have: team/support."""
    settings = dataclasses.replace(api.config, profile={"team/support": config.Profile()})
    transport = httpx.ASGITransport(build(dataclasses.replace(api.services, config=settings)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert conforms(Model, await http.get("/v1/models/team/support")).id == "team/support"


async def test_who_asks_an_unknown_profile_hears_of_those_there_are(api: Api) -> None:
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}
    error = await api.refusal(404, "POST", "/v1/chat/completions", json=body)
    assert "'gpt-4'" in error["message"]
    assert "'ragagent'" in error["message"]
