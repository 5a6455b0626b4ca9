"""Embedder and generator of any server that speaks OpenAI's API: vLLM, Ollama, TEI, OpenAI, DeepSeek, Qwen."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import httpx
import numpy as np

from ragagent import config
from ragagent.errors import Upstream
from ragagent.providers.base import Delta, FinishReason, Vectors, unit
from ragagent.providers.endpoint import Endpoint, Refused, Transient
from ragagent.types import Prompt, Usage

_MAX_EVENT_BYTES = 4 * 1024 * 1024


class OpenAIEmbedder:
    def __init__(self, settings: config.Embedder) -> None:
        self.model = settings.model
        self.dimension = settings.dimension
        self.is_remote = True
        self._batch = settings.batch
        self._endpoint = _endpoint(settings)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        rows = np.empty((len(texts), self.dimension), dtype=np.float32)
        for first in range(0, len(texts), self._batch):
            batch = texts[first : first + self._batch]
            rows[first : first + len(batch)] = await self._endpoint.retried(partial(self._post, batch))
        return rows

    async def aclose(self) -> None:
        await self._endpoint.aclose()

    async def _post(self, texts: Sequence[str]) -> Vectors:
        # OpenAI refuses an empty text, and with it the whole batch.
        body = {"model": self.model, "input": [text or " " for text in texts]}
        async with self._endpoint.post("/embeddings", body) as response:
            reply = await response.aread()
        try:
            items = sorted(json.loads(reply)["data"], key=lambda item: item["index"])
            vectors = [_vector(item["embedding"]) for item in items]
        except (ValueError, KeyError, TypeError, binascii.Error) as exc:
            raise Upstream(f"The model endpoint {self._endpoint.host} sent no valid embeddings.") from exc
        return self._checked(vectors, len(texts))

    def _checked(self, vectors: list[Vectors], count: int) -> Vectors:
        host = self._endpoint.host
        if len(vectors) != count:
            raise Upstream(f"The model endpoint {host} sent {len(vectors)} embeddings for {count} texts.")
        for vector in vectors:
            if vector.size != self.dimension:
                raise Upstream(
                    f"The model endpoint {host} sent embeddings of {vector.size} numbers; "
                    f"embedder.dimension is {self.dimension}."
                )
        rows = np.stack(vectors)
        if not np.isfinite(rows).all():
            raise Upstream(f"The model endpoint {host} sent embeddings that are not finite.")
        return unit(rows)


class OpenAIGenerator:
    def __init__(self, settings: config.Generator) -> None:
        self.model = settings.model
        self._max_tokens = settings.max_tokens
        self._temperature = settings.temperature
        self.identity = repr(("openai", settings.base_url, settings.model, settings.temperature, settings.max_tokens))
        self._endpoint = _endpoint(settings)
        self._asks_usage = True

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta]:
        # Only the first delta is fetched under retry: what the reader has seen cannot be taken back.
        first, rest = await self._endpoint.retried(partial(self._begin, prompt))
        async with aclosing(rest):
            yield first
            async for delta in rest:
                yield delta

    async def aclose(self) -> None:
        await self._endpoint.aclose()

    async def _begin(self, prompt: Prompt) -> tuple[Delta, AsyncGenerator[Delta]]:
        deltas = self._deltas(prompt)
        try:
            return await anext(deltas), deltas
        except Refused as exc:
            if not self._asks_usage or "stream_options" not in exc.reason:
                raise
            # Servers older than the option refuse it; their answers count all the same.
            self._asks_usage = False
            deltas = self._deltas(prompt)
            return await anext(deltas), deltas

    async def _deltas(self, prompt: Prompt) -> AsyncGenerator[Delta]:
        """Yield the text as it comes, and at the end, in one delta, usage and finish reason."""
        usage: Usage | None = None
        finish_reason: FinishReason | None = None
        try:
            async with self._endpoint.post("/chat/completions", self._body(prompt)) as response:
                async with aclosing(_events(response)) as events:
                    async for event in events:
                        if event == "[DONE]":
                            finish_reason = finish_reason or "stop"
                            break
                        chunk = self._chunk(event)
                        usage = _usage(chunk) or usage
                        text, reason = _choice(chunk)
                        finish_reason = reason or finish_reason
                        if text:
                            yield Delta(text)
        except Transient:
            # What breaks off after the finish reason takes nothing from the answer.
            if finish_reason is None:
                raise
        if finish_reason is None:
            raise Transient(f"The answer of the model endpoint {self._endpoint.host} ended early.")
        yield Delta(usage=usage, finish_reason=finish_reason)

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.content} for message in prompt.messages],
            "temperature": self._temperature if prompt.temperature is None else prompt.temperature,
            "max_tokens": self._max_tokens if prompt.max_tokens is None else prompt.max_tokens,
            "stream": True,
        }
        if self._asks_usage:
            body["stream_options"] = {"include_usage": True}
        return body

    def _chunk(self, event: str) -> Mapping[str, Any]:
        try:
            chunk = json.loads(event)
        except ValueError as exc:
            raise Upstream(f"The model endpoint {self._endpoint.host} sent an event that is not JSON.") from exc
        if not isinstance(chunk, dict):
            raise Upstream(f"The model endpoint {self._endpoint.host} sent an event that is not an object.")
        if chunk.get("error"):
            raise self._endpoint.error_event(chunk["error"])
        return chunk


def _endpoint(settings: config.Embedder | config.Generator) -> Endpoint:
    return Endpoint(
        settings.base_url, settings.api_key, timeout_seconds=settings.timeout_seconds, retries=settings.retries
    )


def _vector(embedding: list[float] | str) -> Vectors:
    """Read an embedding as servers send it: a list of numbers, or the bytes of little-endian floats in base64."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
    return np.asarray(embedding, dtype=np.float32).reshape(-1)


async def _events(response: httpx.Response) -> AsyncGenerator[str]:
    """Yield the data of each event. httpx's own lines also end at U+2028, which may stand inside a JSON string."""
    held = b""
    async for part in response.aiter_bytes():
        *lines, held = (held + part).split(b"\n")
        if len(held) > _MAX_EVENT_BYTES:
            raise Upstream(
                f"The model endpoint {response.url.host} sent an event of more than {_MAX_EVENT_BYTES} bytes."
            )
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].decode("utf-8", "replace").strip()


def _choice(chunk: Mapping[str, Any]) -> tuple[str, FinishReason | None]:
    """Return the new text of the first choice, and why it ended, if it did."""
    choices = chunk.get("choices") or [{}]
    choice = choices[0] if isinstance(choices, list) and isinstance(choices[0], dict) else {}
    delta = choice.get("delta")
    text = delta.get("content") if isinstance(delta, dict) else None
    reason = choice.get("finish_reason")
    return text if isinstance(text, str) else "", None if not reason else "length" if reason == "length" else "stop"


def _usage(chunk: Mapping[str, Any]) -> Usage | None:
    usage = chunk.get("usage")
    if not isinstance(usage, dict):
        return None
    return Usage(_number(usage.get("prompt_tokens")), _number(usage.get("completion_tokens")))


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
