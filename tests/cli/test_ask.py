from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from click.testing import Result

from fake_ragagent import FakeRagagent

Run = Callable[..., Result]

FIRST, SECOND = "Send SIGHUP.", "Workers are replaced."
TEXT = f"{FIRST} [2] {SECOND} [1] [3]"


def citation(statement: str, filename: str, quote: str) -> dict[str, Any]:
    start = TEXT.index(statement)
    end = start + len(statement)
    return {"filename": filename, "quote": quote, "start_index": start, "end_index": end, "file_id": "file-1"}


CITATIONS = [
    citation(FIRST, "b.md", "Send SIGHUP\nto it."),
    citation(SECOND, "a.md", "Replaced."),
    citation(SECOND, "c.md", "New\x1b[2J ones."),
]


def completion(text: str, citations: Sequence[dict[str, Any]], evidence: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "annotations": citations}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    explained = {"evidence": evidence, "cache": "miss"}
    return {"model": "ragagent", "choices": [{"message": message}], "usage": usage, "ragagent": explained}


def stream(pieces: Sequence[str], citations: Sequence[dict[str, Any]], evidence: str) -> list[bytes]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in pieces)]
    events: list[dict[str, Any]] = [{"choices": [{"delta": delta}]} for delta in deltas]
    last = {"choices": [{"delta": {"annotations": citations}}], "ragagent": {"evidence": evidence}}
    lines = [f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode() for event in [*events, last]]
    return [*lines, b"data: [DONE]\n\n"]


@pytest.fixture(autouse=True)
def answer(fake: FakeRagagent) -> None:
    fake.events = stream([TEXT[:9], TEXT[9:]], CITATIONS, "found")
    fake.completion = completion(TEXT, CITATIONS, "found")


SHOWN = f"{TEXT}\n\n[1] a.md  “Replaced.”\n[2] b.md  “Send SIGHUP to it.”\n[3] c.md  “New[2J ones.”\n"


def test_the_answer_streams_and_its_citations_follow_under_their_numbers(ask: Run, fake: FakeRagagent) -> None:
    assert ask("ask", "How do I reload?").stdout == SHOWN
    assert fake.requests[-1].json["stream"] is True


def test_no_stream_prints_the_same(ask: Run, fake: FakeRagagent) -> None:
    assert ask("ask", "How do I reload?", "--no-stream").stdout == SHOWN
    assert "stream" not in fake.requests[-1].json


def test_json_is_the_answer_with_its_citations(ask: Run) -> None:
    assert json.loads(ask("ask", "How do I reload?", "--json").stdout) == {
        "answer": TEXT,
        "citations": [{**c, "quote": c["quote"]} for c in CITATIONS],
        "evidence": "found",
        "model": "ragagent",
        "cache": "miss",
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def test_citations_without_markers_are_numbered_in_order(ask: Run, fake: FakeRagagent) -> None:
    bare = {"filename": "a.md", "quote": "Q", "start_index": 0, "end_index": 12}
    fake.events = stream(["Send SIGHUP. Now."], [bare, {**bare, "filename": "b.md"}], "found")
    assert ask("ask", "q").stdout.endswith("\n\n[1] a.md  “Q”\n[2] b.md  “Q”\n")


def test_an_honest_refusal_is_no_failure_and_is_visible(ask: Run, fake: FakeRagagent) -> None:
    fake.events = stream(["I could not find it."], [], "none")
    fake.completion = completion("I could not find it.", [], "none")
    result = ask("ask", "q")
    assert (result.exit_code, result.stdout) == (0, "I could not find it.\n\nevidence: none, no citations\n")
    assert json.loads(ask("ask", "q", "--json").stdout)["evidence"] == "none"


def test_stores_and_model_reach_the_server(ask: Run, fake: FakeRagagent) -> None:
    ask("ask", "如何", "--store", "a", "--store", "b", "--model", "support")
    body = fake.requests[-1].json
    assert body["messages"] == [{"role": "user", "content": "如何"}]
    assert (body["model"], body["ragagent"]) == ("support", {"stores": ["a", "b"]})


def test_an_error_in_mid_answer_is_exit_code_1(ask: Run, fake: FakeRagagent) -> None:
    fake.events = [*stream(["So far."], [], "found")[:2], b'data: {"error": {"message": "The model is gone."}}\n\n']
    result = ask("ask", "q")
    assert (result.exit_code, result.stdout) == (1, "So far.")
    assert result.stderr == "Error: The model is gone.\n"
