"""`/v1/embeddings`: the embedder that the stores use, for whoever wants to compare with them."""

from __future__ import annotations

import base64

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ragagent.api import limiting
from ragagent.api.schemas.body import read
from ragagent.api.schemas.embeddings import Embeddings
from ragagent.api.services import services
from ragagent.errors import Invalid, NotFound
from ragagent.text import count_tokens
from ragagent.types import Usage


async def create(request: Request) -> JSONResponse:
    asked = await read(request, Embeddings)
    embedder = services(request).embedders.default
    if asked.model != embedder.model:
        raise NotFound(
            f"The model '{asked.model}' does not exist; the embedder is '{embedder.model}'.",
            param="model",
            code="model_not_found",
        )
    if asked.dimensions not in (None, embedder.dimension):
        raise Invalid(
            f"'dimensions' has value {asked.dimensions}; '{embedder.model}' has {embedder.dimension}.",
            param="dimensions",
        )
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    for position, text in enumerate(texts):
        if not text.strip():
            raise Invalid(f"'input.{position}' is empty.", param="input")
    await limiting.expect(request, texts)
    vectors = await embedder.embed(texts)
    encode = _base64 if asked.encoding_format == "base64" else _floats
    tokens = sum(count_tokens(text) for text in texts)
    await limiting.spend(request, Usage(tokens))
    return JSONResponse(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": position, "embedding": encode(vector)}
                for position, vector in enumerate(vectors)
            ],
            "model": embedder.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _floats(vector: np.ndarray) -> list[float]:
    return [float(value) for value in vector]


def _base64(vector: np.ndarray) -> str:
    # Little-endian float32: what the official client asks for by default, and decodes.
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


routes = [Route("/v1/embeddings", create, methods=["POST"])]
