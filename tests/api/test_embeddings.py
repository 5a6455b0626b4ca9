"""Embeddings: the vectors that the stores use."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from openai.types import CreateEmbeddingResponse

from application import Api, conforms

pytestmark = pytest.mark.anyio

PATH = "/v1/embeddings"
MODEL = "wordllama-256"


async def test_the_reply_is_the_clients_type(api: Api) -> None:
    reply = await api.json("POST", PATH, json={"model": MODEL, "input": ["one", "二"]})
    created = conforms(CreateEmbeddingResponse, reply)
    assert [item.index for item in created.data] == [0, 1]
    assert all(abs(sum(x * x for x in item.embedding) - 1) < 1e-5 for item in created.data)


async def test_base64_is_little_endian_float32(api: Api) -> None:
    body = {"model": MODEL, "input": "one"}
    floats = (await api.json("POST", PATH, json=body))["data"][0]["embedding"]
    coded = (await api.json("POST", PATH, json={**body, "encoding_format": "base64"}))["data"][0]["embedding"]
    assert np.allclose(np.frombuffer(base64.b64decode(coded), "<f4"), floats)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"model": "other", "input": "x"}, 404, "model"),
        ({"model": MODEL, "input": ""}, 400, "input"),
        ({"model": MODEL, "input": []}, 400, "input"),
        ({"model": MODEL, "input": ["a", " "]}, 400, "input"),
        ({"model": MODEL, "input": "x", "dimensions": 128}, 400, "dimensions"),
        ({"input": "x"}, 400, "model"),
    ],
)
async def test_what_cannot_be_embedded_is_refused_by_name(
    api: Api, body: dict[str, object], status: int, param: str
) -> None:
    assert (await api.refusal(status, "POST", PATH, json=body))["param"] == param
