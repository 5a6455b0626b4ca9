"""Texts into a store, in each of the ways that there are, until a search can see all of them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import client
from server import Running

POLL_SECONDS = 0.02
POLL_SHARE = 0.1  # of the time at most is spent asking: the answer counts all documents of the store
FILES_TOGETHER = 500
WAIT_SECONDS = 600.0


@dataclass(frozen=True)
class Loader:
    started: Running
    store: str
    prefix: str = "text"

    def upsert(self, first: int, texts: Sequence[str]) -> bytes:
        """Return the request that stores the texts under their numbers from `first` on."""
        documents = [{"external_id": f"{self.prefix}-{first + n}", "text": text} for n, text in enumerate(texts)]
        return client.request("/v1/ragagent/documents", {"store": self.store, "documents": documents})

    def bulk(self, texts: Sequence[str], together: int, connections: int) -> float:
        """Store the texts in requests of so many; return the seconds until all are seen."""
        starts = range(0, len(texts), together)
        requests = [self.upsert(first, texts[first : first + together]) for first in starts]
        begun = time.monotonic()
        client.in_parallel(
            [partial(client.each, self.started.port, requests[slot::connections]) for slot in range(connections)]
        )
        self.wait()
        return time.monotonic() - begun

    def files(self, contents: Sequence[str], connections: int) -> float:
        """Upload files and attach them in batches; return the seconds until all are seen."""
        numbered = [(f"{self.prefix}-{n}.txt", content) for n, content in enumerate(contents)]
        ids: list[str] = []

        def upload(part: Sequence[tuple[str, str]]) -> None:
            for name, content in part:
                given = {"file": (name, content.encode(), "text/plain")}
                reply = self.started.client.post("/v1/files", data={"purpose": "assistants"}, files=given)
                ids.append(reply.raise_for_status().json()["id"])

        begun = time.monotonic()
        client.in_parallel([partial(upload, numbered[slot::connections]) for slot in range(connections)])
        for first in range(0, len(ids), FILES_TOGETHER):
            body = {"file_ids": ids[first : first + FILES_TOGETHER]}
            self.started.client.post(f"/v1/vector_stores/{self.store}/file_batches", json=body).raise_for_status()
        self.wait()
        return time.monotonic() - begun

    def wait(self) -> None:
        """Wait until the store has nothing in progress."""
        until = time.monotonic() + WAIT_SECONDS
        while (begun := time.monotonic()) < until:
            shown = self.started.client.get(f"/v1/vector_stores/{self.store}").raise_for_status().json()
            if not shown["file_counts"]["in_progress"]:
                assert not shown["file_counts"]["failed"], shown
                return
            time.sleep(max(POLL_SECONDS, (time.monotonic() - begun) / POLL_SHARE))
        raise SystemExit(f"store {self.store} is still loading after {WAIT_SECONDS:.0f} s")

    def one_by_one(self, first: int, texts: Sequence[str], pause: float = 0.0) -> list[float]:
        """Store each text in a request of its own, waiting for each; return the seconds of each until it is seen."""
        connection = client.Connection(self.started.port)
        seconds = []
        for number, text in enumerate(texts, first):
            request = self.upsert(number, [text])
            begun = time.perf_counter()
            connection.post(request)
            seconds.append(time.perf_counter() - begun)
            time.sleep(pause)
        connection.close()
        return seconds

    @contextmanager
    def running(self, texts: Sequence[str], together: int) -> Iterator[None]:
        """Load the texts in requests of so many, over and over as new ones, for as long as the block."""
        is_over = threading.Event()

        def run() -> None:
            connection = client.Connection(self.started.port)
            for first in itertools.count(0, together):
                if is_over.is_set():
                    break
                start = first % (len(texts) - together)
                connection.post(self.upsert(first, texts[start : start + together]))
            connection.close()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def new_store(started: Running, name: str) -> str:
    store: str = started.client.post("/v1/vector_stores", json={"name": name}).raise_for_status().json()["id"]
    return store
