from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import Result

from fake_ragagent import FakeRagagent, Hangup, Raw, Status
from ragagent.cli import client as module
from ragagent.cli.client import Client, Unreachable, segment
from ragagent.errors import RagagentError, Unavailable

Run = Callable[..., Result]


@pytest.fixture
def client(fake: FakeRagagent) -> Iterator[Client]:
    with Client(fake.url) as client:
        yield client


@pytest.fixture
def nobody() -> Iterator[str]:
    """A port that is taken, and at which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def test_an_error_keeps_the_servers_words(client: Client, fake: FakeRagagent) -> None:
    fake.trouble(Status(404, "Vector store 'x' does not exist.", "not_found"))
    with pytest.raises(RagagentError, match="Vector store 'x' does not exist") as caught:
        client.get("/v1/vector_stores/x")
    assert caught.value.code == "not_found"


def test_a_refused_key_says_how_to_give_one(client: Client, fake: FakeRagagent) -> None:
    fake.trouble(Status(401, "The API key is not known, or it was revoked.", "invalid_api_key"))
    with pytest.raises(RagagentError, match="RAGAGENT_API_KEY"):
        client.get("/v1/vector_stores")


@pytest.mark.parametrize(
    "other", [Raw(404, b"<html>"), Raw(200, b"<html>"), Raw(200, b"[]"), Raw(500, b'{"error": 1}')]
)
def test_another_program_on_the_port_is_told_apart(client: Client, fake: FakeRagagent, other: Raw) -> None:
    fake.trouble(other)
    with pytest.raises(RagagentError, match="is it a RAGAgent server"):
        client.get("/v1/vector_stores")


def test_no_server_says_how_to_start_one(nobody: str) -> None:
    with Client(nobody) as client, pytest.raises(Unreachable, match="ragagent serve"):
        client.get("/v1/vector_stores")


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(fake: FakeRagagent, nobody: str, run: Run) -> None:
    for url in (fake.url, fake.url.replace("127.0.0.1", "localhost")):
        assert run("store", "ls", "--url", url, HTTP_PROXY=nobody, http_proxy=nobody).exit_code == 0


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/"])
def test_the_base_url_of_an_openai_client_is_understood(fake: FakeRagagent, run: Run, tail: str) -> None:
    assert run("store", "ls", "--url", fake.url + tail).exit_code == 0
    assert fake.asked("GET", "/v1/vector_stores") == 1


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host", "http://", "http://[::1"])
def test_what_is_no_url_is_wrong_usage(run: Run, url: str) -> None:
    assert run("store", "ls", "--url", url).exit_code == 2


@pytest.mark.parametrize("trouble", [Status(503, "busy", retry_after=0), Status(429, "slow", retry_after=0), Hangup()])
def test_a_busy_server_and_a_cut_connection_are_tried_again(
    client: Client, fake: FakeRagagent, trouble: Status | Hangup
) -> None:
    fake.trouble(trouble, trouble)
    assert client.get("/v1/vector_stores")["data"] == []
    assert [asked.headers["x-stainless-retry-count"] for asked in fake.requests] == ["0", "1", "2"]


def test_what_another_try_cannot_better_is_not_tried_again(client: Client, fake: FakeRagagent) -> None:
    fake.trouble(Status(429, "The store is full.", "insufficient_quota", is_final=True))
    with pytest.raises(RagagentError, match="The store is full"):
        client.get("/v1/vector_stores")
    assert len(fake.requests) == 1


def test_trying_again_has_an_end(client: Client, fake: FakeRagagent) -> None:
    fake.trouble(*[Status(503, "The disk is slow.", "unavailable", retry_after=0)] * 10)
    with pytest.raises(RagagentError, match="The disk is slow"):
        client.get("/v1/vector_stores")
    assert len(fake.requests) == module.RETRIES + 1


def test_an_upload_that_is_tried_again_is_whole(client: Client, fake: FakeRagagent, tmp_path: Path) -> None:
    path = tmp_path / "说明.txt"
    path.write_bytes(b"x" * 300_000)
    fake.trouble(Hangup())
    with path.open("rb") as content:
        client.upload("/v1/files", path.name, content, purpose="assistants")
    (upload,) = fake.uploads.values()
    assert (upload.filename, len(upload.data)) == ("说明.txt", 300_000)


def test_a_list_is_read_to_its_end(client: Client, fake: FakeRagagent) -> None:
    made = [client.post("/v1/vector_stores", {"name": str(n)})["id"] for n in range(5)]
    assert [store["id"] for store in client.items("/v1/vector_stores")] == made
    assert fake.asked("GET", "/v1/vector_stores") == 3


def sse(*events: object) -> list[bytes]:
    return [b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n" for event in events]


def test_a_stream_may_hold_every_kind_of_line_end(client: Client, fake: FakeRagagent) -> None:
    event = {"text": "a\u2028b\x85c\u2029d"}
    fake.events = [*sse(event), b"data: [DONE]\n\n"]
    assert list(client.events("/v1/chat/completions", {"stream": True})) == [event]


def test_an_error_within_a_stream_is_raised(client: Client, fake: FakeRagagent) -> None:
    fake.events = sse({"n": 1}, {"error": {"message": "The model is gone.", "code": "upstream_error"}})
    stream = client.events("/v1/chat/completions", {"stream": True})
    assert next(stream) == {"n": 1}
    with pytest.raises(RagagentError, match="The model is gone"):
        next(stream)


def test_a_stream_without_its_end_is_no_answer(client: Client, fake: FakeRagagent) -> None:
    fake.events = sse({"n": 1})
    with pytest.raises(Unavailable, match="cut off"):
        list(client.events("/v1/chat/completions", {"stream": True}))


def test_a_refused_stream_is_the_servers_error(client: Client, fake: FakeRagagent) -> None:
    fake.trouble(Status(404, "The model 'x' does not exist.", "model_not_found"))
    with pytest.raises(RagagentError, match="The model 'x' does not exist"):
        list(client.events("/v1/chat/completions", {"stream": True}))


def test_a_name_becomes_one_part_of_a_path() -> None:
    assert segment("中文 a?b#c%") == "%E4%B8%AD%E6%96%87%20a%3Fb%23c%25"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
def test_a_name_that_would_change_the_path_is_wrong_usage(name: str) -> None:
    with pytest.raises(click.UsageError, match="cannot stand in a URL"):
        segment(name)
