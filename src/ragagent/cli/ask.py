"""`ragagent ask`: an answer as it is written, then what supports it.

The answer's markers count the evidence that the model saw, so they may skip numbers; the list repeats them as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from ragagent.cli.client import JSON, Client, with_client
from ragagent.cli.output import Output, clean, reporting

_MARKERS = re.compile(r"\s?[\[【](\d{1,3})[\]】]")


@click.command()
@click.argument("question")
@click.option("--store", "stores", multiple=True, metavar="NAME", help="Name or id; repeatable. Default: the model's.")
@click.option("--model", default="ragagent", show_default=True, help="Profile that answers.")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is whole.")
@reporting
@with_client
def ask(question: str, stores: Sequence[str], model: str, no_stream: bool, out: Output, client: Client) -> None:
    """Answer a question from the stores, with citations.

    Without evidence the answer says so; that is no failure of the command, and --json has it as "evidence": "none".
    """
    body: JSON = {"model": model, "messages": [{"role": "user", "content": question}]}
    if stores:
        body["ragagent"] = {"stores": list(stores)}
    answer = _whole(client, body) if no_stream or out.as_json else _streamed(client, body)
    if out.as_json:
        out.document(answer)
        return
    if no_stream:
        click.echo(clean(answer["answer"]))
    for line in _sources(answer):
        out.line(line)


def _whole(client: Client, body: JSON) -> JSON:
    reply = client.post("/v1/chat/completions", body)
    message = reply["choices"][0]["message"]
    return {
        "answer": message["content"],
        "citations": message["annotations"],
        "evidence": reply["ragagent"]["evidence"],
        "model": reply["model"],
        "cache": reply["ragagent"]["cache"],
        "usage": reply["usage"],
    }


def _streamed(client: Client, body: JSON) -> JSON:
    """Print the answer as it comes; return it whole."""
    text, evidence = "", "none"
    citations: list[JSON] = []
    for event in client.events("/v1/chat/completions", {**body, "stream": True}):
        for choice in event["choices"]:
            piece = choice["delta"].get("content") or ""
            click.echo(clean(piece), nl=False)
            text += piece
            citations += choice["delta"].get("annotations") or []
        evidence = event.get("ragagent", {}).get("evidence", evidence)
    click.echo()
    return {"answer": text, "citations": citations, "evidence": evidence}


def _sources(answer: Mapping[str, Any]) -> Iterator[str]:
    if not answer["citations"]:
        yield click.style(f"\nevidence: {answer['evidence']}, no citations", dim=True)
        return
    yield ""
    for number, filename, quote in _numbered(answer["answer"], answer["citations"]):
        yield f"[{number}] {click.style(clean(filename), fg='cyan')}  “{' '.join(clean(quote).split())}”"


def _numbered(text: str, citations: Sequence[Mapping[str, Any]]) -> list[tuple[int, str, str]]:
    """Return each `(number, filename, quote)` once, by number."""
    spans = [(citation["start_index"], citation["end_index"]) for citation in citations]
    found: dict[tuple[int, str, str], None] = {}
    for at, citation in enumerate(citations):
        markers = _markers_behind(text, spans[at][1])
        position = spans[:at].count(spans[at])  # Several citations of one statement own its markers in order.
        number = markers[position] if position < len(markers) else at + 1
        found[number, citation["filename"], citation["quote"]] = None
    return sorted(found, key=lambda entry: entry[0])


def _markers_behind(text: str, end: int) -> list[int]:
    numbers = []
    while marker := _MARKERS.match(text, end):
        numbers.append(int(marker.group(1)))
        end = marker.end()
    return numbers
