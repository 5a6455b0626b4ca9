"""Any OpenAI-compatible endpoint, over a real socket: what it answers, and every way in which it fails."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest

from fake_openai import Base64, Cut, Dimension, ErrorEvent, FakeOpenAI, Hang, Raw, Status, Text
from ragagent import config
from ragagent.errors import Upstream
from ragagent.providers.base import Delta
from ragagent.providers.openai import OpenAIEmbedder, OpenAIGenerator
from ragagent.types import Message, Prompt, Usage

pytestmark = pytest.mark.anyio

KEY = "sk-very-secret"
PROMPT = Prompt("Why?", "en", (), (Message("system", "Rules"), Message("user", "Why?")), max_tokens=50, temperature=0.5)


@pytest.fixture
async def embedder(fake: FakeOpenAI) -> AsyncIterator[OpenAIEmbedder]:
    settings = config.Embedder(
        provider="openai", model="emb", dimension=64, base_url=fake.base_url, api_key=KEY, timeout_seconds=5.0, batch=3
    )
    embedder = OpenAIEmbedder(settings)
    yield embedder
    await embedder.aclose()


def _generator(fake: FakeOpenAI, **settings: object) -> OpenAIGenerator:
    known: dict[str, object] = {"base_url": fake.base_url, "api_key": KEY, "timeout_seconds": 5.0}
    return OpenAIGenerator(config.Generator(provider="openai", model="chat", **{**known, **settings}))  # type: ignore[arg-type]


@pytest.fixture
async def generator(fake: FakeOpenAI) -> AsyncIterator[OpenAIGenerator]:
    generator = _generator(fake)
    yield generator
    await generator.aclose()


async def _read(generator: OpenAIGenerator) -> list[Delta]:
    return [delta async for delta in generator.stream(PROMPT)]


async def _read_into(read: list[Delta], generator: OpenAIGenerator) -> None:
    async for delta in generator.stream(PROMPT):
        read.append(delta)


def _text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


# Embeddings


async def test_rows_follow_the_texts_through_batches(fake: FakeOpenAI, embedder: OpenAIEmbedder) -> None:
    texts = [f"text number {number}" for number in range(7)]
    rows = await embedder.embed(texts)
    assert rows.dtype == np.float32
    assert rows.shape == (7, 64)
    np.testing.assert_allclose(rows, [fake.vector(text) for text in texts], atol=1e-6)
    assert [len(request.body["input"]) for request in fake.requests] == [3, 3, 1]
    assert fake.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert fake.requests[0].body["model"] == "emb"


async def test_base64_replies_are_read(fake: FakeOpenAI, embedder: OpenAIEmbedder) -> None:
    fake.next(Base64())
    np.testing.assert_allclose(await embedder.embed(["a b"]), [fake.vector("a b")], atol=1e-6)


async def test_rows_are_of_unit_length_whatever_comes(fake: FakeOpenAI, embedder: OpenAIEmbedder) -> None:
    data = [{"index": 0, "embedding": [3.0] * 64}, {"index": 1, "embedding": [0] * 64}]
    fake.next(Raw(json.dumps({"data": data}).encode()))
    rows = await embedder.embed(["long", "zero"])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)


async def test_an_empty_text_is_not_sent_as_one(fake: FakeOpenAI, embedder: OpenAIEmbedder) -> None:
    await embedder.embed(["", "b"])
    assert fake.requests[0].body["input"] == [" ", "b"]


async def test_no_texts_ask_nothing(fake: FakeOpenAI, embedder: OpenAIEmbedder) -> None:
    assert (await embedder.embed([])).shape == (0, 64)
    assert fake.calls == 0


async def test_another_dimension_names_both_numbers(fake: FakeOpenAI, embedder: OpenAIEmbedder) -> None:
    fake.next(Dimension(48))
    with pytest.raises(Upstream, match=r"embeddings of 48 numbers; embedder.dimension is 64"):
        await embedder.embed(["a"])
    assert fake.calls == 1


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b'{"data": [{"index": 0}]}',
        b'{"data": [{"index": 0, "embedding": "!"}]}',
        b'{"data": [{"index": 0, "embedding": [null]}]}',
        b'{"data": []}',
        b'{"data": [{"index": 0, "embedding": [NaN' + b", 1" * 63 + b"]}]}",
    ],
)
async def test_nonsense_is_an_upstream_error(fake: FakeOpenAI, embedder: OpenAIEmbedder, body: bytes) -> None:
    fake.next(Raw(body))
    with pytest.raises(Upstream, match=f"127.0.0.1:{fake.port} sent"):
        await embedder.embed(["a"])


# Failures that may pass


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_what_may_pass_is_tried_again(fake: FakeOpenAI, embedder: OpenAIEmbedder, status: int) -> None:
    fake.next(Status(status, retry_after=0.01), Status(status, retry_after=0.01))
    assert (await embedder.embed(["a"])).shape == (1, 64)
    assert fake.calls == 3


async def test_after_the_last_try_the_status_and_the_host_are_named(fake: FakeOpenAI, embedder: OpenAIEmbedder) -> None:
    fake.next(*[Status(503, retry_after=0.01)] * 3)
    with pytest.raises(Upstream, match=rf"127\.0\.0\.1:{fake.port} answered 503") as raised:
        await embedder.embed(["a"])
    assert fake.calls == 3
    assert raised.value.code == "upstream_error"


async def test_retry_after_is_waited_for(fake: FakeOpenAI, embedder: OpenAIEmbedder) -> None:
    fake.next(Status(429, retry_after=0.5))
    began = time.monotonic()
    await embedder.embed(["a"])
    assert time.monotonic() - began >= 0.5


async def test_a_long_retry_after_is_handed_on_instead(fake: FakeOpenAI, embedder: OpenAIEmbedder) -> None:
    fake.next(Status(429, retry_after=3600))
    with pytest.raises(Upstream, match="answered 429") as raised:
        await embedder.embed(["a"])
    assert raised.value.retry_after == 3600
    assert fake.calls == 1


async def test_a_server_that_hangs_is_given_up(fake: FakeOpenAI) -> None:
    fake.next(Hang(), Hang())
    generator = _generator(fake, timeout_seconds=0.2, retries=1)
    with pytest.raises(Upstream, match=r"did not answer within 0.2 s"):
        await _read(generator)
    assert fake.calls == 2
    await generator.aclose()


async def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        url = f"http://127.0.0.1:{port}/v1"
        embedder = OpenAIEmbedder(config.Embedder(provider="openai", base_url=url, retries=0))
        with pytest.raises(Upstream, match=f"127.0.0.1:{port} cannot be reached"):
            await embedder.embed(["a"])
        await embedder.aclose()


# Failures that stay


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_are_not_tried_again(fake: FakeOpenAI, embedder: OpenAIEmbedder, status: int) -> None:
    fake.next(Status(status, message=f"Incorrect API key provided: {KEY}"))
    with pytest.raises(Upstream, match="rejected our credentials") as raised:
        await embedder.embed(["a"])
    assert KEY not in str(raised.value)
    assert fake.calls == 1


async def test_a_wrong_request_is_not_tried_again_and_says_why(fake: FakeOpenAI, generator: OpenAIGenerator) -> None:
    fake.next(Status(404, message=f"The model `chat` does not exist for {KEY}."))
    with pytest.raises(Upstream, match=r"answered 404: The model `chat` does not exist for \*\*\*\.$"):
        await _read(generator)
    assert fake.calls == 1


async def test_the_key_is_in_no_log_and_no_repr(
    fake: FakeOpenAI, embedder: OpenAIEmbedder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fake.next(Status(500, retry_after=0.01))
    await embedder.embed(["a"])
    assert caplog.records
    assert KEY not in caplog.text
    assert KEY not in repr(embedder) + repr(vars(embedder))


# Chat


async def test_an_answer_is_streamed(fake: FakeOpenAI, generator: OpenAIGenerator) -> None:
    fake.reply = "Because of the rain [1]."
    deltas = await _read(generator)
    assert [delta.text for delta in deltas] == ["Because ", "of ", "the ", "rain ", "[1].", ""]
    assert deltas[-1] == Delta(usage=Usage(7, 5), finish_reason="stop")
    assert all(delta.finish_reason is None for delta in deltas[:-1])
    body = fake.requests[0].body
    assert body["messages"] == [{"role": "system", "content": "Rules"}, {"role": "user", "content": "Why?"}]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("chat", 50, 0.5)


async def test_line_separators_inside_the_text_survive(fake: FakeOpenAI, generator: OpenAIGenerator) -> None:
    answer = "one\u2028two\x85three\nfour 汉字"
    event = json.dumps({"choices": [{"delta": {"content": answer}, "finish_reason": "stop"}]}, ensure_ascii=False)
    fake.next(Raw(f": ping\r\n\r\ndata:{event}\r\n\r\ndata: [DONE]\r\n\r\n".encode()))
    assert _text(await _read(generator)) == answer


async def test_an_answer_that_was_cut_at_its_limit_says_so(fake: FakeOpenAI, generator: OpenAIGenerator) -> None:
    fake.next(Text("Too long", finish_reason="length"))
    assert (await _read(generator))[-1].finish_reason == "length"


async def test_an_empty_answer_has_an_end_all_the_same(fake: FakeOpenAI, generator: OpenAIGenerator) -> None:
    fake.reply = ""
    assert await _read(generator) == [Delta(usage=Usage(7, 0), finish_reason="stop")]


async def test_a_server_that_refuses_stream_options_is_asked_without(
    fake: FakeOpenAI, generator: OpenAIGenerator
) -> None:
    fake.refuses_stream_options = True
    assert (await _read(generator))[-1] == Delta(finish_reason="stop")
    assert (await _read(generator))[-1].finish_reason == "stop"
    # It is asked once only: the second answer costs one call.
    assert fake.calls == 3


async def test_a_failure_before_the_first_word_is_tried_again(fake: FakeOpenAI, generator: OpenAIGenerator) -> None:
    fake.next(Status(500, retry_after=0.01), Cut(1))
    assert _text(await _read(generator)) == "Echo [1]."
    assert fake.calls == 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Cut(2), "broke off the connection"),
        (Cut(2, clean=True), "ended early"),
        (Hang(2), r"did not answer within 0.3 s"),
        (ErrorEvent(2, f"overloaded {KEY}"), r"reported an error: overloaded \*\*\*\."),
    ],
    ids=["cut", "clean", "hang", "error"],
)
async def test_after_the_first_word_a_failure_is_final(fake: FakeOpenAI, fault: Cut, message: str) -> None:
    fake.reply = "one two three four"
    fake.next(fault)
    generator = _generator(fake, timeout_seconds=0.3)
    read: list[Delta] = []
    with pytest.raises(Upstream, match=message):
        await _read_into(read, generator)
    assert _text(read) == "one "
    assert fake.calls == 1
    await generator.aclose()


async def test_a_cut_after_the_finish_reason_takes_nothing_away(fake: FakeOpenAI, generator: OpenAIGenerator) -> None:
    fake.reply = "one two"
    fake.next(Cut(4))
    deltas = await _read(generator)
    assert _text(deltas) == "one two"
    assert deltas[-1].finish_reason == "stop"


@pytest.mark.parametrize("body", [b"data: {\n\n", b"data: []\n\n", b'data: "text"\n\n'])
async def test_an_event_that_is_no_event_is_an_upstream_error(
    fake: FakeOpenAI, generator: OpenAIGenerator, body: bytes
) -> None:
    fake.next(Raw(body))
    with pytest.raises(Upstream, match="sent an event that is not"):
        await _read(generator)


@pytest.mark.parametrize(
    "event",
    [
        '{"choices": []}',
        '{"choices": null}',
        '{"choices": [null]}',
        '{"choices": [{"delta": {"content": null}}]}',
        "{}",
    ],
)
async def test_events_without_text_are_passed_over(fake: FakeOpenAI, generator: OpenAIGenerator, event: str) -> None:
    fake.next(Raw(f"data: {event}\n\ndata: [DONE]\n\n".encode()))
    assert await _read(generator) == [Delta(finish_reason="stop")]


async def test_a_reader_that_leaves_closes_the_connection(fake: FakeOpenAI, generator: OpenAIGenerator) -> None:
    fake.next(Hang(3))
    stream = generator.stream(PROMPT)
    assert (await anext(stream)).text == "Echo "
    await stream.aclose()
    assert _text(await _read(generator)) == "Echo [1]."
