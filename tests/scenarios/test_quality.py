"""Retrieval over HTTP, measured on real questions: what the README promises of the built-in embedder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

import servers
import xquad


@pytest.mark.parametrize(("language", "hit1", "hit5"), [("en", 0.93, 0.985), ("zh", 0.915, 0.98)])
def test_search_finds_the_paragraph_that_answers(
    server: servers.Running, language: str, hit1: float, hit5: float
) -> None:
    data = xquad.load(language)
    with server.http() as client:
        store = client.post("/v1/vector_stores", json={"name": f"xquad-{language}"}).raise_for_status().json()["id"]
        file_ids: dict[str, str] = {}
        for batch in _batches(data.paragraphs, 60):
            documents = [{"external_id": name, "text": text} for name, text in batch.items()]
            reply = client.post("/v1/ragagent/documents", json={"store": store, "documents": documents})
            assert reply.status_code == 200, reply.text
            file_ids |= {row["id"]: row["external_id"] for row in reply.json()["data"]}

        def rank(question: xquad.Question) -> int:
            found = _search(client, store, question.text)
            names = [file_ids[item["file_id"]] for item in found]
            return names.index(question.paragraph) if question.paragraph in names else 99

        with ThreadPoolExecutor(4) as pool:
            ranks = list(pool.map(rank, data.questions))
    found_first = sum(rank < 1 for rank in ranks) / len(ranks)
    found_early = sum(rank < 5 for rank in ranks) / len(ranks)
    assert found_first >= hit1, f"hit@1 {found_first:.4f}"
    assert found_early >= hit5, f"hit@5 {found_early:.4f}"


def _batches(items: dict[str, str], size: int) -> list[dict[str, str]]:
    names = list(items)
    return [{name: items[name] for name in names[at : at + size]} for at in range(0, len(names), size)]


def _search(client: httpx.Client, store: str, query: str) -> list[dict[str, str]]:
    reply = client.post(f"/v1/vector_stores/{store}/search", json={"query": query, "max_num_results": 5})
    found: list[dict[str, str]] = reply.raise_for_status().json()["data"]
    return found
