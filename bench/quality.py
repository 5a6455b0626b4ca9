"""Retrieval and answer quality on XQuAD, over HTTP, with the configured embedder and generator.

    python bench/quality.py                 hit@1, hit@5 and MRR per leg and fused, English and Chinese
    python bench/quality.py --answers       the evidence gate, and how often the answer holds the gold string

The gate is measured with half of the articles in each of two stores: a question's own half holds its answer, the other
half does not. The data is looked for in --data, $RAGAGENT_TEST_DATA, or ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from server import server

T = TypeVar("T")

LEGS: dict[str, dict[str, Any]] = {
    "dense": {"hybrid_search": {"embedding_weight": 1, "text_weight": 0}},
    "lexical": {"hybrid_search": {"embedding_weight": 0, "text_weight": 1}},
    "fused": {},
    "rrf": {"fusion": "rrf", "hybrid_search": {"embedding_weight": 1, "text_weight": 1}},
}
DEPTH = 50
THREADS = 4


@dataclass(frozen=True)
class Question:
    text: str
    paragraph: str
    article: int
    answers: tuple[str, ...]


def main() -> None:
    arguments = _arguments()
    with server(arguments.url) as client:
        for language in arguments.languages:
            paragraphs, questions = load(arguments.data / f"xquad.{language}.json")
            print(f"\nXQuAD {language}: {len(paragraphs)} paragraphs, {len(questions)} questions")
            if arguments.answers:
                answers(client, language, paragraphs, questions)
            else:
                legs(client, language, paragraphs, questions)


def legs(
    client: httpx.Client, language: str, paragraphs: dict[str, tuple[int, str]], questions: Sequence[Question]
) -> None:
    store, names = ingest(client, f"quality-{language}", paragraphs)
    print(f"{'':10}{'hit@1':>8}{'hit@5':>8}{'MRR':>8}")
    for leg, ranking in LEGS.items():

        def rank(question: Question, ranking: dict[str, Any] = ranking) -> int:
            body = {"query": question.text, "max_num_results": DEPTH, "ranking_options": ranking}
            found = client.post(f"/v1/vector_stores/{store}/search", json=body).raise_for_status().json()["data"]
            order = list(dict.fromkeys(names[item["file_id"]] for item in found))
            return order.index(question.paragraph) + 1 if question.paragraph in order else 0

        ranks = parallel(rank, questions)
        first, five = share(rank == 1 for rank in ranks), share(0 < rank <= 5 for rank in ranks)
        mrr = sum(1 / rank for rank in ranks if rank) / len(ranks)
        print(f"{leg:10}{first:8.4f}{five:8.4f}{mrr:8.4f}", flush=True)


def answers(
    client: httpx.Client, language: str, paragraphs: dict[str, tuple[int, str]], questions: Sequence[Question]
) -> None:
    halves = [
        ingest(client, f"half-{parity}-{language}", {n: p for n, p in paragraphs.items() if p[0] % 2 == parity})[0]
        for parity in (0, 1)
    ]

    def ask(question: Question, half: int) -> tuple[bool, bool, bool]:
        body = {
            "model": "ragagent",
            "messages": [{"role": "user", "content": question.text}],
            "ragagent": {"stores": [halves[half]]},
        }
        reply = client.post("/v1/chat/completions", json=body).raise_for_status().json()
        message = reply["choices"][0]["message"]
        holds_gold = any(answer in message["content"] for answer in question.answers)
        return reply["ragagent"]["evidence"] == "found", holds_gold, bool(message["annotations"])

    present = parallel(lambda question: ask(question, question.article % 2), questions)
    absent = parallel(lambda question: ask(question, 1 - question.article % 2), questions)
    print(f"answer in the store:      answered {share(found for found, _, _ in present):.3f}")
    print(f"                          of these, holding the gold string {share(g for f, g, _ in present if f):.3f}")
    print(f"                          of these, with a citation {share(c for f, _, c in present if f):.3f}")
    print(f"answer not in the store:  refused {share(not found for found, _, _ in absent):.3f}", flush=True)


def load(path: Path) -> tuple[dict[str, tuple[int, str]], list[Question]]:
    """Return `{name: (article, text)}` and the questions."""
    if not path.exists():
        raise SystemExit(f"{path} is missing; name the directory that holds XQuAD with --data")
    paragraphs: dict[str, tuple[int, str]] = {}
    questions: list[Question] = []
    for number, article in enumerate(json.loads(path.read_text(encoding="utf-8"))["data"]):
        for paragraph in article["paragraphs"]:
            name = f"{article['title']}-{len(paragraphs)}"
            paragraphs[name] = number, paragraph["context"]
            for qa in paragraph["qas"]:
                gold = tuple(answer["text"] for answer in qa["answers"])
                questions.append(Question(qa["question"], name, number, gold))
    return paragraphs, questions


def ingest(client: httpx.Client, name: str, paragraphs: dict[str, tuple[int, str]]) -> tuple[str, dict[str, str]]:
    """Load the paragraphs into a new store; return its id and `{file_id: name}`."""
    store: str = client.post("/v1/vector_stores", json={"name": name}).raise_for_status().json()["id"]
    documents = [{"external_id": name, "text": text} for name, (_, text) in paragraphs.items()]
    names: dict[str, str] = {}
    for first in range(0, len(documents), 100):
        body = {"store": store, "documents": documents[first : first + 100]}
        reply = client.post("/v1/ragagent/documents", json=body).raise_for_status()
        names |= {row["id"]: row["external_id"] for row in reply.json()["data"]}
    return store, names


def parallel(work: Callable[[Question], T], questions: Sequence[Question]) -> list[T]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, questions))


def share(flags: Iterable[bool]) -> float:
    counted = list(flags)
    return sum(counted) / max(len(counted), 1)


def _arguments() -> argparse.Namespace:
    beside = Path(__file__).parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RAGAGENT_TEST_DATA", beside)))
    parser.add_argument("--languages", nargs="+", default=["en", "zh"], choices=["en", "zh"])
    parser.add_argument("--answers", action="store_true", help="measure answers and refusals instead of retrieval")
    parser.add_argument("--url", help="a server that runs already; without it, one is started")
    return parser.parse_args()


if __name__ == "__main__":
    main()
