"""What a store must hold, by what was acknowledged: a dictionary, random writes to it, and reads that must equal it.

A write whose reply never came may have happened or not, but not by half: `settle` looks which, and sends it again.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

import servers

MOST = 40  # documents: one search shows up to 50, so that a single read is the whole store
SECONDS = 60.0

Entry = tuple[str, Mapping[str, int]]  # text, attributes
Contents = dict[str, Entry]  # by external id or file name


@dataclass(frozen=True)
class Write:
    """`send` may be called again: it is then told that it is a retry. Returns the seq that a read is to wait for."""

    send: Callable[[httpx.Client, bool], int]
    after: Contents


class Ledger:
    """One store and its truth. `running` is the server of the moment; set it anew after a restart."""

    def __init__(self, running: servers.Running, name: str, chance: random.Random) -> None:
        self.running = running
        self.store = running.new_store(name)
        self.contents: Contents = {}
        self._chance = chance
        self._version = itertools.count()
        self._files: dict[str, str] = {}  # name -> file id
        self._unanswered: Write | None = None
        self._seq = 0  # of a write that was acknowledged before it could be seen

    def write(self) -> bool:
        """Do one random write; return whether it was acknowledged."""
        write = self._random()
        try:
            with self.running.http() as client:
                self._acknowledged(write, write.send(client, False))
        except httpx.TransportError:
            self._unanswered = write
            return False
        return True

    def settle(self) -> None:
        """Send again what was not answered, once it is clear that it happened whole or not at all."""
        write, self._unanswered = self._unanswered, None
        if write is None:
            return
        deadline = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(httpx.TransportError):
                found = self._read()
                assert found in (self.contents, write.after), _difference(found, write.after)
                with self.running.http() as client:
                    self._acknowledged(write, write.send(client, True))
                return
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def check(self) -> None:
        """Hold a read of everything, the list, and one search by words and by attribute against the dictionary."""
        found = self._read()
        assert found == self.contents, _difference(found, self.contents)
        listed = self._listed()
        assert listed == {name: dict(attributes) for name, (_, attributes) in self.contents.items()}
        if self.contents:
            name = self._chance.choice(sorted(self.contents))
            text, attributes = self.contents[name]
            word = text.split()[-1].rstrip(".")
            best = self.running.search(self.store, word)[0]
            assert best["content"][0]["text"] == text
            assert best["scores"]["lexical"] is not None, word
            wanted = {"type": "eq", "key": "n", "value": attributes["n"]}
            passed = self.running.search(self.store, "the record says", filters=wanted)
            assert {item["filename"] for item in passed} == {
                name for name, (_, others) in self.contents.items() if others["n"] == attributes["n"]
            }

    def _read(self) -> Contents:
        """Return all that the store shows, on a fresh connection."""
        body = {"query": "the record says", "max_num_results": 50}
        headers = {"x-ragagent-min-seq": str(self._seq)}
        with self.running.http() as client:
            reply = client.post(f"/v1/vector_stores/{self.store}/search", json=body, headers=headers)
        assert reply.status_code == 200, reply.text
        found: Contents = {}
        for item in reply.json()["data"]:
            assert item["filename"] not in found, f"twice: {item}, {found[item['filename']]}"
            found[item["filename"]] = (item["content"][0]["text"], item["attributes"])
        return found

    def _listed(self) -> dict[str, Mapping[str, int]]:
        with self.running.http() as client:
            reply = client.get(f"/v1/vector_stores/{self.store}/files", params={"limit": 100}).raise_for_status()
        names = {file_id: name for name, file_id in self._files.items()}
        rows = reply.json()["data"]
        assert {row["status"] for row in rows} <= {"completed"}, rows
        return {row["external_id"] or names[row["id"]]: row["attributes"] for row in rows}

    def _acknowledged(self, write: Write, seq: int) -> None:
        self.contents, self._seq = write.after, seq

    # Writes

    def _random(self) -> Write:
        texts = sorted(name for name in self.contents if name.startswith("text"))
        uploads = sorted(name for name in self.contents if name.startswith("file"))
        kinds: list[Callable[[], Write]] = [self._upsert] * 2
        kinds += [self._upload] * 2
        if texts:
            kinds += [lambda: self._replace(self._chance.choice(texts))] * 4
            kinds += [lambda: self._delete(self._chance.choice(texts))] * 2
        if uploads:
            kinds += [lambda: self._detach(self._chance.choice(uploads))]
            kinds += [lambda: self._label(self._chance.choice(uploads))]
        if len(self.contents) > MOST - 4:
            kinds = kinds[4:]
        return self._chance.choice(kinds)()

    def _upsert(self) -> Write:
        """Several new documents in one call."""
        names = [f"text{next(self._version):05d}" for _ in range(self._chance.randint(1, 4))]
        return self._write_texts({name: self._entry(name) for name in names})

    def _replace(self, name: str) -> Write:
        return self._write_texts({name: self._entry(name)})

    def _write_texts(self, new: Contents) -> Write:
        documents = [
            {"external_id": name, "text": text, "attributes": dict(attributes)}
            for name, (text, attributes) in new.items()
        ]

        def send(client: httpx.Client, is_retry: bool) -> int:
            reply = client.post("/v1/ragagent/documents", json={"store": self.store, "documents": documents})
            return _seq(reply)

        return Write(send, {**self.contents, **new})

    def _upload(self) -> Write:
        name = f"file{next(self._version):05d}.html"
        text, attributes = self._entry(name)

        def send(client: httpx.Client, is_retry: bool) -> int:
            headers = {"x-stainless-retry-count": "1"} if is_retry else {}
            files = {"file": (name, f"<p>{text}</p>".encode())}
            reply = client.post("/v1/files", data={"purpose": "assistants"}, files=files, headers=headers)
            assert reply.status_code == 200, reply.text
            self._files[name] = reply.json()["id"]
            body = {"file_id": self._files[name], "attributes": dict(attributes)}
            return _seq(client.post(f"/v1/vector_stores/{self.store}/files", json=body))

        return Write(send, {**self.contents, name: (text, attributes)})

    def _delete(self, name: str) -> Write:
        def send(client: httpx.Client, is_retry: bool) -> int:
            body = {"store": self.store, "external_ids": [name]}
            return _seq(client.request("DELETE", "/v1/ragagent/documents", json=body))

        return Write(send, self._without(name))

    def _detach(self, name: str) -> Write:
        def send(client: httpx.Client, is_retry: bool) -> int:
            reply = client.delete(f"/v1/vector_stores/{self.store}/files/{self._files[name]}")
            return self._seq if is_retry and reply.status_code == 404 else _seq(reply)

        return Write(send, self._without(name))

    def _label(self, name: str) -> Write:
        attributes = {"n": self._chance.randint(0, 3)}

        def send(client: httpx.Client, is_retry: bool) -> int:
            path = f"/v1/vector_stores/{self.store}/files/{self._files[name]}"
            return _seq(client.post(path, json={"attributes": attributes}))

        return Write(send, {**self.contents, name: (self.contents[name][0], attributes)})

    def _entry(self, name: str) -> Entry:
        word = f"word{next(self._version):05d}"
        return f"The record of {name} says {word}.", {"n": self._chance.randint(0, 3)}

    def _without(self, name: str) -> Contents:
        return {key: entry for key, entry in self.contents.items() if key != name}


def _seq(reply: httpx.Response) -> int:
    assert reply.status_code in (200, 202), reply.text
    return int(reply.headers["x-ragagent-seq"]) if reply.status_code == 202 else 0


def _difference(found: Contents, wanted: Contents) -> str:
    names = sorted(found.keys() | wanted.keys())
    return "; ".join(
        f"{name}: found {found.get(name)}, wanted {wanted.get(name)}"
        for name in names
        if found.get(name) != wanted.get(name)
    )
