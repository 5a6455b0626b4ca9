"""Many ask the same at once, of four workers: the model is asked once, and all get its answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

import servers
from fake_openai import FakeOpenAI, Status, fake_openai
from redis_server import redis_server

pytestmark = pytest.mark.redis

T = TypeVar("T")
CALLERS = 50
CONFIG = """
[embedder]
provider = "openai"
model = "fake-embedder"
dimension = 64
base_url = "{url}"

[generator]
provider = "openai"
model = "fake-llm"
base_url = "{url}"
retries = 0

[cache]
answer_seconds = 3
stale_seconds = 0
stale_on_error_seconds = 60
"""
SAID = "The harbour of Rotterdam is the largest harbour in Europe [1]. " + "It is large. " * 12


@dataclass
class Scene:
    running: servers.Running
    fake: FakeOpenAI

    def ask(self, question: str, *, stream: bool = False) -> dict[str, Any]:
        """Ask on a fresh connection, so that any worker may answer; return text, citations and tier, or the error."""
        body = {"model": "ragagent", "stream": stream, "messages": [{"role": "user", "content": question}]}
        with self.running.http() as client:
            reply = client.post("/v1/chat/completions", json=body)
        if reply.status_code != 200:
            return {"status": reply.status_code}
        told = {"tier": reply.headers["x-ragagent-cache"]}
        if not stream:
            message = reply.json()["choices"][0]["message"]
            return {**told, "text": message["content"], "citations": message["annotations"]}
        assert reply.text.endswith("data: [DONE]\n\n")
        events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
        deltas = [choice["delta"] for event in events for choice in event["choices"]]
        text = "".join(delta.get("content", "") for delta in deltas)
        return {**told, "text": text, "citations": deltas[-1]["annotations"]}

    def calls(self, path: str = "/chat/completions") -> int:
        return len([request for request in self.fake.requests if request.path.endswith(path)])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory: Path = tmp_path_factory.mktemp("one-answer")
    with redis_server() as redis, fake_openai(dimension=64) as fake:
        env = {"REDIS_URL": redis.url, "RAGAGENT_SERVER__WORKERS": "4", "RAGAGENT_REDIS__TIMEOUT_SECONDS": "2"}
        with servers.server(directory, CONFIG.format(url=fake.base_url), **env) as running:
            store = running.new_store("facts")
            running.upsert(store, harbour="The harbour of Rotterdam is the largest harbour in Europe.")
            fake.reply = SAID
            fake.event_seconds = 0.03
            yield Scene(running, fake)


def at_once(call: Callable[[int], T]) -> list[T]:
    ready = threading.Barrier(CALLERS)

    def one(number: int) -> T:
        ready.wait(30)
        return call(number)

    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(one, range(CALLERS)))


def test_fifty_equal_questions_are_one_call_of_the_model_streamed_or_not(scene: Scene) -> None:
    before, embedded = scene.calls(), scene.calls("/embeddings")
    found = at_once(lambda number: scene.ask("Which harbour is the largest?", stream=number % 2 == 0))
    assert scene.calls() - before == 1
    assert scene.calls("/embeddings") - embedded == 1
    texts = {each["text"] for each in found}
    assert texts == {SAID.rstrip()}
    assert {json.dumps(each["citations"]) for each in found} == {json.dumps(found[0]["citations"])}
    assert found[0]["citations"]
    assert "miss" in {each["tier"] for each in found}
    assert scene.ask("Which harbour is the largest?")["tier"] in ("l1", "l2")


def test_fifty_equal_questions_to_a_model_that_fails_are_one_call_as_well(scene: Scene) -> None:
    before = scene.calls()
    scene.fake.event_seconds = 0.0
    # One worker's clients may come after another's failure is over, and then ask for themselves.
    scene.fake.next(*[Status(500)] * 4)
    found = at_once(lambda number: scene.ask("Which harbour fails the largest?"))
    failed = [each for each in found if "status" in each]
    assert failed
    assert {each["status"] for each in failed} == {502}
    assert scene.calls() - before < 8


def test_an_answer_that_is_past_its_time_is_served_when_the_model_is_away(scene: Scene) -> None:
    question = "Which harbour is away?"
    first = scene.ask(question)
    assert first["tier"] == "miss"
    scene.fake.is_away = True
    try:
        found = servers.wait_until(lambda: _stale(scene, question), 10)
        streamed = scene.ask(question, stream=True)
        assert found == streamed == {**first, "tier": "stale"}
        assert scene.ask("Which harbour was never asked for?") == {"status": 502}
    finally:
        scene.fake.is_away = False


def _stale(scene: Scene, question: str) -> dict[str, Any]:
    found = scene.ask(question)
    return found if found["tier"] == "stale" else {}
