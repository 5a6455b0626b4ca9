"""The embedder's vectors, as the client's types have them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from openai.types import CreateEmbeddingResponse

from application import Api, conforms

pytestmark = pytest.mark.anyio

PATH = "/v1/embeddings"
MODEL = "wordllama-256"


async def vectors(api: Api, **fields: Any) -> CreateEmbeddingResponse:
    return conforms(CreateEmbeddingResponse, await api.http.post(PATH, json={"model": MODEL, **fields}))


@pytest.mark.parametrize("fields", [{}, {"encoding_format": "float"}, {"encoding_format": None, "dimensions": None}])
async def test_floats_are_the_default(api: Api, fields: dict[str, Any]) -> None:
    reply = await vectors(api, input="hello", **fields)
    (item,) = reply.data
    assert len(item.embedding) == 256
    assert np.linalg.norm(item.embedding) == pytest.approx(1.0, abs=1e-5)
    assert reply.model == MODEL
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > 0


async def test_each_text_has_its_own_vector_in_its_place(api: Api) -> None:
    together = await vectors(api, input=["hello", "你好", "hello"], dimensions=256)
    assert [item.index for item in together.data] == [0, 1, 2]
    assert together.data[0].embedding == together.data[2].embedding != together.data[1].embedding
    alone = await vectors(api, input="你好")
    assert np.allclose(alone.data[0].embedding, together.data[1].embedding, atol=1e-6)
    assert together.usage.total_tokens > alone.usage.total_tokens


async def test_base64_is_little_endian_float32(api: Api) -> None:
    floats = (await vectors(api, input="one")).data[0].embedding
    body = {"model": MODEL, "input": "one", "encoding_format": "base64"}
    coded = (await api.json("POST", PATH, json=body))["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(coded), "<f4").tolist() == floats


async def test_the_official_client_decodes_the_base64_it_asks_for(api: Api) -> None:
    decoded = await api.openai.embeddings.create(model=MODEL, input=["hello", "world"])
    floats = await vectors(api, input=["hello", "world"])
    assert [item.embedding for item in decoded.data] == [item.embedding for item in floats.data]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": ["a", " \n"]}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": [1, 2, 3]}, "input.0"),
        ({}, "input"),
        ({"input": "a", "model": None}, "model"),
        ({"input": "a", "dimensions": 128}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ],
)
async def test_what_has_no_vector_is_refused_by_name(api: Api, fields: dict[str, Any], param: str) -> None:
    assert (await api.refusal(400, "POST", PATH, json={"model": MODEL, **fields}))["param"] == param


async def test_another_model_is_not_found_and_hears_which_there_is(api: Api) -> None:
    error = await api.refusal(404, "POST", PATH, json={"model": "text-embedding-3", "input": "a"})
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert MODEL in error["message"]
