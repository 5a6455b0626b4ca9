"""What was acknowledged is read on every connection, what was deleted on none, and one request sees one moment."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import servers

MANY = [100, pytest.param(2000, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]


@pytest.mark.parametrize("count", MANY)
def test_a_write_on_one_worker_is_read_on_any_other(server: servers.Running, count: int) -> None:
    """And a delete as well. Every search is on a fresh connection."""
    store = server.new_store("read your writes")
    missed, ghosts = [], []
    for n in range(count):
        word = f"keyword{n:04d}"
        assert server.upsert(store, **{f"doc{n}": f"Message {n} speaks of {word}."}).status_code == 200
        if not _finds(server, store, word):
            missed.append(word)
    for n in range(count):
        word = f"keyword{n:04d}"
        with server.http() as client:
            body = {"store": store, "external_ids": [f"doc{n}"]}
            assert client.request("DELETE", "/v1/ragagent/documents", json=body).status_code == 200
        if _finds(server, store, word):
            ghosts.append(word)
    assert (missed, ghosts) == ([], [])


def _finds(running: servers.Running, store: str, word: str) -> bool:
    return any(word in text for text in running.found(store, word))


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Running]:
    """A server that builds a generation every few writes."""
    directory = tmp_path_factory.mktemp("busy")
    with servers.server(directory, RAGAGENT_INGEST__MAX_DELTA_ROWS="10") as running:
        yield running


def test_an_update_is_seen_whole_by_every_request(busy: servers.Running) -> None:
    """While texts are replaced again and again, each search sees exactly one version of each, whatever is asked."""
    store = busy.new_store("atomic updates")
    names = [f"rolling{n}" for n in range(3)]
    busy.upsert(store, **{name: f"The rolling text {name}, version 0." for name in names})
    seen: list[tuple[int, dict[str, int]]] = []

    def read(queries: str | list[str]) -> None:
        found = busy.search(store, queries)  # type: ignore[arg-type]
        seen.append((len(queries), collections.Counter(item["filename"] for item in found)))

    queries = [f"rolling text version {n}" for n in range(6)]
    with _readers(lambda: read("the rolling text version"), lambda: read(queries)):
        for n in range(1, 60):
            busy.upsert(store, **{name: f"The rolling text {name}, version {n}." for name in names})
    assert len(seen) > 50
    wrong = [one for one in seen if one[1] != dict.fromkeys(names, 1)]
    assert not wrong, f"{len(wrong)} of {len(seen)}: {wrong[:3]}"


@pytest.mark.parametrize("generations", [5, pytest.param(20, marks=[pytest.mark.soak, pytest.mark.timeout(600)])])
def test_searches_go_on_while_generations_are_published(busy: servers.Running, generations: int) -> None:
    """A hundred searches a second: none fails, none sees an id twice, none misses what is acknowledged."""
    store = busy.new_store("generations")
    still = [f"still{n}" for n in range(20)]
    busy.upsert(store, **{name: f"The pebble {name} lies where it lay." for name in still})
    acknowledged = collections.Counter(still)
    failures: list[Any] = []
    looked = 0

    def read() -> None:
        nonlocal looked
        before = set(acknowledged)
        found = collections.Counter(item["filename"] for item in busy.search(store, "the pebble lies"))
        looked += 1
        if before - set(found) or max(found.values()) > 1:
            failures.append((before - set(found), found.most_common(3)))

    with _readers(*[read] * 4, failures=failures, pause=0.03):
        first = _generation(busy, store)
        n = 0
        while _generation(busy, store) < first + generations:
            name = f"moving{n % 20}"
            busy.upsert(store, **{name: f"The pebble {name} lies at place {n}."})
            acknowledged[name] += 1
            n += 1
    assert failures == []
    assert looked > 20 * generations


def _generation(running: servers.Running, store: str) -> int:
    shown = {entry["id"]: entry["generation"] for entry in running.control("status")["stores"]}
    return int(shown.get(store, 0))


@contextmanager
def _readers(*works: Callable[[], None], failures: list[Any] | None = None, pause: float = 0.0) -> Iterator[None]:
    """Repeat each of `works` in a thread of its own until the block ends; what they raise is a failure."""
    stop = threading.Event()
    raised: list[Any] = [] if failures is None else failures

    def repeat(work: Callable[[], None]) -> None:
        while not stop.wait(pause):
            try:
                work()
            except Exception as exc:
                raised.append(repr(exc))

    threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert raised == []
