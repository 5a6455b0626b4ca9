"""The unmodified `openai` package against a whole server; each test that names another server settles its mistake."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx
import numpy as np
import openai
import pytest
from openai.types.responses import FileSearchToolParam

import servers

TEXTS = {
    "bridge": "The Øresund Bridge opened on 1 July 2000. It joins Copenhagen in Denmark with Malmö in Sweden.",
    "wall": "The Great Wall of China was built over many centuries. Its total length is 21,196 kilometres.",
    "长城": "长城是中国古代的军事防御工程。长城的总长度为21196千米，修建于多个朝代。",
    "coffee": "Coffee plants are native to Ethiopia. Brazil produces more coffee than any other country.",
}


@pytest.fixture(scope="module")
def store(server: servers.Running) -> str:
    with server.http() as client:
        created: str = client.post("/v1/vector_stores", json={"name": "facts"}).raise_for_status().json()["id"]
    assert server.upsert(created, **TEXTS).status_code == 200
    return created


@pytest.fixture(scope="module")
def client(server: servers.Running) -> Iterator[openai.OpenAI]:
    with server.openai() as opened:
        yield opened


def ask(client: openai.OpenAI, question: str, store: str, **extra: object) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(
        model="ragagent",
        messages=[{"role": "user", "content": question}],
        extra_body={"ragagent": {"stores": [store], **extra}},
    )


def test_models_list_the_profile_and_the_embedder(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["ragagent", "wordllama-256"]
    assert client.models.retrieve("ragagent").object == "model"


@pytest.mark.parametrize(
    ("question", "words", "file"),
    [
        ("When did the Øresund Bridge open?", "1 July 2000", "bridge"),
        ("长城的总长度是多少？", "21196千米", "长城"),
    ],
)
def test_an_answer_carries_citations_that_resolve(
    client: openai.OpenAI, store: str, question: str, words: str, file: str
) -> None:
    completion = ask(client, question, store)
    message = completion.choices[0].message
    assert words in (message.content or "")
    assert completion.choices[0].finish_reason == "stop"
    assert message.annotations, completion
    for annotation in message.annotations:
        cited = annotation.model_dump()
        assert cited["type"] == "file_citation"
        assert cited["filename"] == file
        source = client.files.content(cited["file_id"]).text
        assert source[cited["source_start"] : cited["source_end"]] == cited["quote"]
        assert (message.content or "")[cited["start_index"] : cited["end_index"]] == cited["quote"]
        assert cited["chunk_id"].startswith("chunk_")


def test_a_stream_says_the_same_as_the_whole_answer(client: openai.OpenAI, store: str) -> None:
    question = "Which country produces more coffee than any other?"
    stream = client.chat.completions.create(
        model="ragagent",
        messages=[{"role": "user", "content": question}],
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ragagent": {"stores": [store]}},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    whole = ask(client, question, store)
    assert text == whole.choices[0].message.content
    last = next(chunk for chunk in reversed(chunks) if chunk.choices)
    assert last.choices[0].finish_reason == "stop"
    assert last.choices[0].delta.model_dump()["annotations"] == [
        annotation.model_dump(exclude_none=True) for annotation in whole.choices[0].message.annotations or []
    ]


def test_a_stream_has_the_shape_that_clients_rely_on(server: servers.Running, store: str) -> None:
    """txtai: no role, no finish_reason, a new id per chunk, milliseconds. AnythingLLM: object `chat.completion`."""
    body = {
        "model": "ragagent",
        "messages": [{"role": "user", "content": "Where are coffee plants native to?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "ragagent": {"stores": [store]},
    }
    with server.http() as http, http.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}
    assert {chunk["created"] for chunk in chunks} == {chunks[0]["created"]}
    assert abs(chunks[0]["created"] - time.time()) < 60
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]][-1] == "stop"
    assert all(chunk["choices"][0]["index"] == 0 for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 0


@pytest.mark.parametrize(
    ("question", "refusal"),
    [("Who won the chess championship of 1894?", "could not find"), ("谁发明了蒸汽机？", "没有找到")],
)
def test_without_evidence_it_refuses_in_the_language_of_the_question(
    client: openai.OpenAI, store: str, question: str, refusal: str
) -> None:
    completion = ask(client, question, store)
    assert refusal in (completion.choices[0].message.content or "")
    assert completion.choices[0].finish_reason == "stop"
    assert not completion.choices[0].message.annotations
    assert completion.model_extra is not None
    assert completion.model_extra["ragagent"]["evidence"] == "none"


def test_a_refusal_streams_too(client: openai.OpenAI, store: str) -> None:
    stream = client.chat.completions.create(
        model="ragagent",
        messages=[{"role": "user", "content": "Who won the chess championship of 1894?"}],
        stream=True,
        extra_body={"ragagent": {"stores": [store]}},
    )
    chunks = list(stream)
    assert "could not find" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_file_search_tool_names_the_stores(client: openai.OpenAI, store: str) -> None:
    completion = client.chat.completions.create(
        model="ragagent",
        messages=[{"role": "user", "content": "When did the Øresund Bridge open?"}],
        tools=[{"type": "file_search", "vector_store_ids": [store]}],  # type: ignore[list-item]
    )
    assert "2000" in (completion.choices[0].message.content or "")


@pytest.mark.parametrize(
    ("question", "words", "file"),
    [("When did the Øresund Bridge open?", "1 July 2000", "bridge"), ("长城的总长度是多少？", "21196千米", "长城")],
)
def test_a_response_is_streamed_continued_and_kept_on_every_worker(
    server: servers.Running, client: openai.OpenAI, store: str, question: str, words: str, file: str
) -> None:
    tool = FileSearchToolParam(type="file_search", vector_store_ids=[store])
    with client.responses.stream(model="ragagent", input=question, tools=[tool]) as stream:
        said = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        first = stream.get_final_response()
    assert words in said
    assert said == first.output_text
    cited = first.output[1].content[0].annotations[0]  # type: ignore[union-attr,index]
    assert cited.filename == file  # type: ignore[union-attr]
    for _ in range(8):  # each on a connection of its own, and so on either worker
        with server.openai() as another:
            follow_up = another.responses.create(
                model="ragagent", input=question, previous_response_id=first.id, tools=[tool]
            )
            assert words in follow_up.output_text
            assert another.responses.retrieve(first.id).output_text == said
    listed = [item.type for item in client.responses.input_items.list(follow_up.id, limit=2, order="asc")]
    assert listed == ["message", "file_search_call", "message", "message"]
    client.responses.delete(first.id)
    for _ in range(8):
        with server.openai() as another, pytest.raises(openai.NotFoundError) as gone:
            another.responses.create(model="ragagent", input=question, previous_response_id=first.id)
        assert gone.value.code == "previous_response_not_found"


def test_embeddings_come_as_base64_and_as_floats(client: openai.OpenAI) -> None:
    """The client asks for base64 by itself. txtai: no usage."""
    decoded = client.embeddings.create(model="wordllama-256", input=["hello", "你好"])
    floats = client.embeddings.create(model="wordllama-256", input=["hello", "你好"], encoding_format="float")
    assert np.allclose([item.embedding for item in decoded.data], [item.embedding for item in floats.data], atol=1e-6)
    assert len(decoded.data[0].embedding) == 256
    assert decoded.usage.prompt_tokens > 0


def test_a_file_is_uploaded_searched_and_deleted(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="uploads")
    uploaded = client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id,
        file=("notes.md", b"# Notes\n\nThe password of the guest network is swordfish."),
        attributes={"kind": "note", "year": 2024},
    )
    assert uploaded.status == "completed", uploaded.last_error
    found = client.vector_stores.search(store.id, query="password of the guest network")
    assert [item.file_id for item in found] == [uploaded.id]
    assert found.data[0].attributes == {"kind": "note", "year": 2024}
    assert client.vector_stores.retrieve(store.id).file_counts.completed == 1
    assert "swordfish" in client.vector_stores.files.content(uploaded.id, vector_store_id=store.id).data[0].text  # type: ignore[operator]
    client.files.delete(uploaded.id)
    assert client.vector_stores.search(store.id, query="password of the guest network").data == []
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(uploaded.id)
    client.vector_stores.delete(store.id)


def test_filters_work_inside_the_search(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="filters")
    for year in range(2015, 2025):
        client.vector_stores.files.upload_and_poll(
            vector_store_id=store.id,
            file=(f"report-{year}.txt", f"The annual report of {year}: revenue grew.".encode()),
            attributes={"year": year, "final": year < 2024},
        )
    late = client.vector_stores.search(
        store.id,
        query="annual report revenue",
        max_num_results=50,
        filters={
            "type": "and",
            "filters": [
                {"type": "gte", "key": "year", "value": 2020},
                {"type": "eq", "key": "final", "value": True},
            ],
        },
    )
    assert {item.filename for item in late} == {f"report-{year}.txt" for year in range(2020, 2024)}


def test_a_batch_is_polled_to_its_end(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="batch")
    files = [
        client.files.create(file=(f"{name}.txt", text.encode()), purpose="assistants") for name, text in TEXTS.items()
    ]
    files.append(client.files.create(file=("broken.pdf", b"%PDF-1.4 no such thing"), purpose="assistants"))
    batch = client.vector_stores.file_batches.create_and_poll(store.id, file_ids=[file.id for file in files])
    assert (batch.file_counts.completed, batch.file_counts.failed, batch.file_counts.total) == (4, 1, 5)
    listed = client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id, filter="failed")
    assert [(item.id, item.last_error.code if item.last_error else "") for item in listed] == [
        (files[-1].id, "invalid_file")
    ]


def test_pages_of_a_list_are_walked_to_the_end(client: openai.OpenAI) -> None:
    created = [client.files.create(file=(f"page-{n}.txt", b"page"), purpose="user_data").id for n in range(7)]
    walked = [file.id for file in client.files.list(limit=2, purpose="user_data", order="asc")]
    assert walked == created
    assert [file.id for file in client.files.list(limit=3, purpose="user_data")] == created[::-1]


def test_an_attached_file_can_be_attached_again(client: openai.OpenAI, store: str) -> None:
    """The client retries a POST whose answer was lost: the second one must not fail, nor ingest twice."""
    file = client.files.create(file=("twice.txt", b"Only once."), purpose="assistants")
    first = client.vector_stores.files.create_and_poll(file.id, vector_store_id=store)
    second = client.vector_stores.files.create_and_poll(file.id, vector_store_id=store)
    assert (first.id, first.status) == (second.id, second.status) == (file.id, "completed")
    assert len(client.vector_stores.search(store, query="Only once.", max_num_results=50).data) == len(
        {item.file_id for item in client.vector_stores.search(store, query="Only once.", max_num_results=50)}
    )


def test_a_retried_upload_is_stored_once(server: servers.Running) -> None:
    form = {"files": {"file": ("retry.txt", b"same bytes")}, "data": {"purpose": "assistants"}}
    with server.http() as http:
        first = http.post("/v1/files", **form).json()["id"]  # type: ignore[arg-type]
        retried = http.post("/v1/files", headers={"x-stainless-retry-count": "1"}, **form).json()["id"]  # type: ignore[arg-type]
        another = http.post("/v1/files", **form).json()["id"]  # type: ignore[arg-type]
    assert first == retried
    assert first != another


def test_errors_become_the_clients_own_exceptions(client: openai.OpenAI, store: str) -> None:
    """RAGFlow: errors with status 200. AnythingLLM: 401 for an unknown model. FastAPI: the message is lost."""
    with pytest.raises(openai.NotFoundError) as unknown_model:
        client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "hi"}])
    assert unknown_model.value.code == "model_not_found"
    assert "'ragagent'" in unknown_model.value.message
    assert unknown_model.value.request_id
    with pytest.raises(openai.NotFoundError) as unknown_store:
        client.vector_stores.search("vs_none", query="x")
    assert "vs_none" in unknown_store.value.message
    with pytest.raises(openai.BadRequestError) as bad_limit:
        client.vector_stores.search(store, query="x", max_num_results=51)
    assert bad_limit.value.param == "max_num_results"
    assert "51" in bad_limit.value.message


def test_a_foreign_authorization_header_is_no_error_on_loopback(server: servers.Running, store: str) -> None:
    """LightRAG refuses a valid key when any other Authorization is sent, as every openai client does."""
    with server.openai(api_key="sk-whatever") as client:
        assert client.vector_stores.retrieve(store).name == "facts"


def test_unknown_fields_are_ignored(server: servers.Running, store: str) -> None:
    body = {
        "model": "ragagent",
        "messages": [{"role": "user", "content": "When did the Øresund Bridge open?", "mood": "curious"}],
        "user": "u1",
        "seed": 7,
        "something_new": {"a": 1},
        "ragagent": {"stores": [store]},
    }
    with server.http() as http:
        assert http.post("/v1/chat/completions", json=body).status_code == 200


def test_replies_carry_the_promised_headers(server: servers.Running, store: str) -> None:
    with server.http() as http:
        reply = http.post(
            f"/v1/vector_stores/{store}/search", json={"query": "coffee"}, headers={"x-request-id": "mine-1"}
        )
        assert reply.headers["x-request-id"] == "mine-1"
        assert reply.headers["x-ragagent-cache"] == "miss"
        assert reply.headers["x-ragagent-generation"].isdecimal()
        assert "total;dur=" in reply.headers["server-timing"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "server" not in reply.headers
        assert "access-control-allow-origin" not in reply.headers
        written = server.upsert(store, extra="A further text.")
        seq = written.headers["x-ragagent-seq"]
        fresh = http.post(
            f"/v1/vector_stores/{store}/search",
            json={"query": "A further text."},
            headers={"x-ragagent-min-seq": seq},
        )
        assert fresh.json()["data"][0]["content"][0]["text"] == "A further text."


def test_a_repeated_question_is_answered_from_the_cache(server: servers.Running, store: str) -> None:
    body = {"query": "Where does the bridge lead to?"}
    with server.http() as http:
        # Two workers, each with its local tier: after three turns one of them has been asked twice.
        tiers = [
            httpx.post(f"{server.url}/v1/vector_stores/{store}/search", json=body).headers["x-ragagent-cache"]
            for _ in range(12)
        ]
        assert tiers[0] == "miss"
        assert "l1" in tiers
        server.upsert(store, bridge=TEXTS["bridge"] + " Trains cross it as well.")
        reply = http.post(f"/v1/vector_stores/{store}/search", json=body)
    assert reply.headers["x-ragagent-cache"] == "miss"
    assert "Trains cross it" in reply.json()["data"][0]["content"][0]["text"]
