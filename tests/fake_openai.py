"""A model endpoint for tests: a real HTTP server on loopback that speaks OpenAI's protocol, and fails when told to.

    with fake_openai() as fake:
        fake.next(Status(429, retry_after=0.01))      # what the next request meets; the one after it is answered
        fake.reply = "Echo [1]."                      # what every chat answers
        ...
        assert fake.calls == 2

It runs in a thread with an event loop of its own, so that it keeps answering while the code under test blocks.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import math
import struct
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

# What can go wrong with one request


@dataclass(frozen=True)
class Status:
    """Answer with an error. `message` goes into OpenAI's envelope."""

    status: int
    retry_after: float | None = None
    message: str = "told to fail"


@dataclass(frozen=True)
class Hang:
    """Send nothing more: before the headers (`events` None), or after so many events of a stream."""

    events: int | None = None


@dataclass(frozen=True)
class Cut:
    """Stop a stream after so many events: abruptly, or cleanly, as if that had been all."""

    events: int
    clean: bool = False


@dataclass(frozen=True)
class ErrorEvent:
    """Send an error as an event, after so many others."""

    events: int = 0
    message: str = "told to fail"


@dataclass(frozen=True)
class Dimension:
    """Send embeddings of another length."""

    dimension: int


@dataclass(frozen=True)
class Base64:
    """Send embeddings as base64, as OpenAI does for its own client."""


@dataclass(frozen=True)
class Raw:
    """Answer 200 with this body, whatever it is."""

    body: bytes


@dataclass(frozen=True)
class Text:
    """Answer this one chat with another text."""

    text: str
    finish_reason: str = "stop"


Fault = Status | Hang | Cut | ErrorEvent | Dimension | Base64 | Raw | Text


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class FakeOpenAI:
    """The server as a test sees it. Set what it answers; read what it was asked."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.reply: str | Callable[[Sequence[dict[str, str]]], str] = "Echo [1]."
        self.event_seconds = 0.0  # between the events of a stream
        self.embedding_seconds = 0.0  # before each reply of embeddings
        self.is_away = False  # every request is answered with 503
        self.refuses_stream_options = False
        self.requests: list[Request] = []
        self.port = 0
        self._faults: deque[Fault] = deque()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def calls(self) -> int:
        return len(self.requests)

    def next(self, *faults: Fault) -> None:
        """Queue what the next requests meet, one each."""
        self._faults.extend(faults)

    def vector(self, text: str) -> list[float]:
        """Return the text's hashed bag of words, of unit length: texts that share words are near each other."""
        return _vector(text, self.dimension)

    # The protocol

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection. A fault that cuts leaves by ConnectionAbortedError."""
        try:
            while request := await _read(reader):
                self.requests.append(request)
                fault = self._faults.popleft() if self._faults else None
                await self._answer(request, fault, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, request: Request, fault: Fault | None, writer: asyncio.StreamWriter) -> None:
        if isinstance(fault, Hang) and fault.events is None:
            await asyncio.sleep(3600)  # Not a bare future: nothing would hold it, and the collector would end it.
        if isinstance(fault, Status):
            return _send(writer, fault.status, _error(fault.message), retry_after=fault.retry_after)
        if self.is_away:
            return _send(writer, 503, _error("away"))
        if isinstance(fault, Raw):
            return _send(writer, 200, fault.body)
        if request.path == "/v1/embeddings":
            await asyncio.sleep(self.embedding_seconds)
            return _send(writer, 200, self._embeddings(request, fault))
        if request.path != "/v1/chat/completions":
            return _send(writer, 404, _error(f"Unknown path {request.path}."))
        if self.refuses_stream_options and "stream_options" in request.body:
            return _send(writer, 400, _error("Unrecognized request argument supplied: stream_options"))
        return await self._chat(request, fault, writer)

    def _embeddings(self, request: Request, fault: Fault | None) -> dict[str, Any]:
        texts = request.body["input"]
        texts = [texts] if isinstance(texts, str) else texts
        dimension = fault.dimension if isinstance(fault, Dimension) else self.dimension
        vectors: list[Any] = [_vector(text, dimension) for text in texts]
        if isinstance(fault, Base64) or request.body.get("encoding_format") == "base64":
            vectors = [base64.b64encode(struct.pack(f"<{dimension}f", *vector)).decode() for vector in vectors]
        data = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(vectors)]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        # The order is the index's, not the list's: a client that trusts the list mixes up its texts.
        return {"object": "list", "model": request.body["model"], "data": data[::-1], "usage": usage}

    async def _chat(self, request: Request, fault: Fault | None, writer: asyncio.StreamWriter) -> None:
        text, reason = self._reply(request, fault)
        if not request.body.get("stream"):
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": reason}
            return _send(writer, 200, {"object": "chat.completion", "choices": [choice], "usage": _usage(text)})
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        wants_usage = bool((request.body.get("stream_options") or {}).get("include_usage"))
        async for event in self._faulty(_events(request.body["model"], text, reason, wants_usage), fault):
            data = f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            await writer.drain()
            await asyncio.sleep(self.event_seconds)
        writer.write(b"0\r\n\r\n")
        return None

    def _reply(self, request: Request, fault: Fault | None) -> tuple[str, str]:
        if isinstance(fault, Text):
            return fault.text, fault.finish_reason
        return self.reply if isinstance(self.reply, str) else self.reply(request.body["messages"]), "stop"

    async def _faulty(self, events: Iterator[Any], fault: Fault | None) -> AsyncIterator[Any]:
        """Yield the events until the fault is due."""
        for number, event in enumerate(events):
            if isinstance(fault, ErrorEvent) and number == fault.events:
                yield {"error": {"message": fault.message, "type": "server_error"}}
                return
            if isinstance(fault, Hang) and number == fault.events:
                await asyncio.sleep(3600)  # Not a bare future: nothing would hold it, and the collector would end it.
            if isinstance(fault, Cut) and number == fault.events:
                if fault.clean:
                    return
                raise ConnectionAbortedError
            yield event


@contextmanager
def fake_openai(dimension: int = 64) -> Iterator[FakeOpenAI]:
    """Run the server for the length of the block, on a free port of 127.0.0.1."""
    fake = FakeOpenAI(dimension)
    ready = threading.Event()
    stop: list[Callable[[], object]] = []

    async def run() -> None:
        done, loop = asyncio.Event(), asyncio.get_running_loop()
        server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
        fake.port = server.sockets[0].getsockname()[1]
        stop.append(lambda: loop.call_soon_threadsafe(done.set))
        ready.set()
        await done.wait()
        server.close()  # asyncio.run cancels the connections that are left

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="fake-openai", daemon=True)
    thread.start()
    if not ready.wait(10.0):
        raise RuntimeError("The fake endpoint did not start within 10 s.")
    try:
        yield fake
    finally:
        stop[0]()
        thread.join(10.0)


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    with fake_openai() as server:
        yield server


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """Return the next request of a connection, or None when the client has closed it."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(first.split(" ")[1], headers, json.loads(body) if body else {})


def _send(writer: asyncio.StreamWriter, status: int, body: Any, *, retry_after: float | None = None) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    wait = f"Retry-After: {retry_after:g}\r\n" if retry_after is not None else ""
    head = f"HTTP/1.1 {status} Fake\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{wait}\r\n"
    writer.write(head.encode() + data)


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


def _events(model: str, text: str, reason: str, wants_usage: bool) -> Iterator[Any]:
    """Yield a stream's events as OpenAI sends them: role, words, finish reason, usage, [DONE]."""
    yield _event(model, {"role": "assistant", "content": ""})
    words = text.split(" ")
    for number, word in enumerate(words):
        yield _event(model, {"content": word if number == len(words) - 1 else word + " "})
    yield _event(model, {}, reason)
    if wants_usage:
        yield {"object": "chat.completion.chunk", "model": model, "choices": [], "usage": _usage(text)}
    yield "[DONE]"


def _event(model: str, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "model": model, "choices": [choice]}


def _usage(text: str) -> dict[str, int]:
    words = len(text.split())
    return {"prompt_tokens": 7, "completion_tokens": words, "total_tokens": 7 + words}


def _vector(text: str, dimension: int) -> list[float]:
    vector = [0.0] * dimension
    # Bigrams of characters beside words, so that Chinese has something to share as well.
    for word in [*text.lower().split(), *map("".join, itertools.pairwise(text))]:
        vector[int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest()) % dimension] += 1.0
    length = math.sqrt(sum(number * number for number in vector))
    return [number / length for number in vector] if length else vector
