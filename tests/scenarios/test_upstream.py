"""Model endpoints by configuration: what they fail with becomes a status, never a broken stream taken for success."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest

import servers
from fake_openai import Cut, ErrorEvent, FakeOpenAI, Fault, Hang, Status, Text, fake_openai

CONFIG = """
[embedder]
provider = "openai"
model = "fake-embedder"
dimension = 64
base_url = "{url}"
timeout_seconds = 2.0
retries = 1

[generator]
provider = "openai"
model = "fake-llm"
base_url = "{url}"
timeout_seconds = 1.0
retries = 1

[cache]
answer_seconds = 0
"""


@dataclass
class Scene:
    running: servers.Running
    fake: FakeOpenAI
    store: str

    def ask(self, question: str, *, stream: bool = False) -> str:
        with self.running.openai(max_retries=0) as client:
            asked = {"model": "ragagent", "messages": [{"role": "user", "content": question}]}
            if not stream:
                completion = client.chat.completions.create(**asked)  # type: ignore[call-overload]
                return str(completion.choices[0].message.content)
            chunks = client.chat.completions.create(**asked, stream=True)  # type: ignore[call-overload]
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory: Path = tmp_path_factory.mktemp("upstream")
    with fake_openai(dimension=64) as fake:
        # One worker, and the question's vector in its cache: what a test queues next meets the chat, nothing else.
        with servers.server(directory, CONFIG.format(url=fake.base_url), RAGAGENT_SERVER__WORKERS="1") as running:
            store = httpx.post(f"{running.url}/v1/vector_stores", json={"name": "facts"}).json()["id"]
            running.upsert(store, harbour="The harbour of Rotterdam is the largest harbour in Europe.")
            scene = Scene(running, fake, store)
            scene.ask(QUESTION)
            yield scene


QUESTION = "Which harbour is the largest harbour in Europe?"


@pytest.mark.parametrize("stream", [False, True])
def test_the_endpoints_answer_is_cited_and_false_markers_are_taken_out(scene: Scene, stream: bool) -> None:
    said = "The harbour of Rotterdam is the largest harbour in Europe [1]. So says the moon [9]. Bananas are blue [1]."
    scene.fake.next(Text(said))
    answer = scene.ask(QUESTION, stream=stream)
    assert answer.count("[1]") == 1
    assert "[9]" not in answer
    sent = scene.fake.requests[-1].body
    assert sent["model"] == "fake-llm"
    assert "harbour of Rotterdam" in sent["messages"][-1]["content"]


def test_usage_is_the_endpoints(scene: Scene) -> None:
    with scene.running.openai() as client:
        completion = client.chat.completions.create(model="ragagent", messages=[{"role": "user", "content": QUESTION}])
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens > 0


def test_a_busy_endpoint_is_tried_again(scene: Scene) -> None:
    scene.fake.next(Status(429, retry_after=0.05))
    assert scene.ask(QUESTION)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "faults", [[Status(500), Status(500)], [Hang(), Hang()], [Status(401)], [ErrorEvent()]], ids=lambda f: str(f[0])
)
def test_what_fails_before_the_first_word_is_a_status(scene: Scene, faults: list[Fault], stream: bool) -> None:
    """Two of a kind for what is tried again."""
    scene.fake.next(*faults)
    with pytest.raises(openai.InternalServerError) as failed:
        scene.ask(QUESTION, stream=stream)
    assert failed.value.status_code == 502
    assert failed.value.code == "upstream_error"
    assert scene.ask(QUESTION), "the next question is answered"


@pytest.mark.parametrize("fault", [Cut(3), Cut(3, clean=True), Hang(3), ErrorEvent(3)])
def test_what_fails_in_the_middle_of_a_stream_is_an_error_event(scene: Scene, fault: Fault) -> None:
    scene.fake.next(fault)
    with pytest.raises(openai.APIError) as failed:
        scene.ask(QUESTION, stream=True)
    assert failed.value.code == "upstream_error"


@pytest.mark.parametrize("fault", [Cut(3), Cut(3, clean=True), ErrorEvent(3)])
def test_a_response_that_fails_in_the_middle_says_so_and_is_not_kept(scene: Scene, fault: Fault) -> None:
    with scene.running.openai(max_retries=0) as client:
        scene.fake.next(fault)
        with client.responses.stream(model="ragagent", input=QUESTION) as stream:
            *_, last = stream
        assert last.type == "response.failed"
        assert last.response.error
        assert last.response.error.type == "upstream_error"
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(last.response.id)


def test_what_a_response_continues_is_told_to_the_endpoint(scene: Scene) -> None:
    with scene.running.openai() as client:
        first = client.responses.create(model="ragagent", input=QUESTION, instructions="Be brief.")
        client.responses.create(model="ragagent", input=QUESTION, previous_response_id=first.id)
    system, *talk, _ = scene.fake.requests[-1].body["messages"]
    assert [message["content"] for message in talk] == [QUESTION, first.output_text]
    assert "Be brief." not in system["content"]


def test_documents_wait_for_an_embedder_that_is_away(scene: Scene) -> None:
    scene.fake.next(*[Status(503)] * 4)
    reply = scene.running.upsert(scene.store, later="The windmill was built in 1712.")
    assert reply.status_code in (200, 202)

    def found() -> bool:
        body = {"query": "When was the windmill built?"}
        data = httpx.post(f"{scene.running.url}/v1/vector_stores/{scene.store}/search", json=body).json().get("data")
        return bool(data and "windmill" in data[0]["content"][0]["text"])

    servers.wait_until(found, 30)


def test_without_evidence_the_endpoint_is_not_even_asked(scene: Scene) -> None:
    before = len([request for request in scene.fake.requests if request.path.endswith("/chat/completions")])
    assert "没有找到" in scene.ask("谁发明了蒸汽机？")
    after = len([request for request in scene.fake.requests if request.path.endswith("/chat/completions")])
    assert before == after
