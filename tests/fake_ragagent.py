"""A server for the command line's tests: real HTTP on loopback, the routes that the commands use, and told troubles.

    with fake_ragagent() as fake:
        fake.trouble(Status(503, "busy", retry_after=0))    # what the next request meets
        ...
        assert fake.asked("POST", "/v1/files") == 1

A file is completed as soon as it stands in a store, unless its content begins with "BAD", which fails, or `slow` says
how often it is first seen in progress. The real server behind the real command is in tests/scenarios/test_cli.py.
"""

from __future__ import annotations

import email.parser
import email.policy
import itertools
import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

JSON = dict[str, Any]


@dataclass(frozen=True)
class Status:
    """Answer with an error in OpenAI's envelope."""

    status: int
    message: str
    code: str = "told"
    retry_after: int | None = None
    is_final: bool = False


@dataclass(frozen=True)
class Raw:
    """Answer with this body and nothing of ours."""

    status: int
    body: bytes


@dataclass(frozen=True)
class Hangup:
    """Read the request, then close the connection without a word."""


@dataclass(frozen=True)
class Gone:
    """Close this connection, and the port with it."""


Trouble = Status | Raw | Hangup | Gone


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    query: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Upload:
    id: str
    filename: str
    data: bytes


@dataclass
class Store:
    id: str
    name: str
    files: dict[str, JSON] = field(default_factory=dict)
    batches: dict[str, list[str]] = field(default_factory=dict)


class NotFound(Exception):
    pass


class FakeRagagent:
    def __init__(self) -> None:
        self.url = ""
        self.stores: dict[str, Store] = {}
        self.uploads: dict[str, Upload] = {}
        self.requests: list[Asked] = []
        self.hits: list[JSON] = []
        self.completion: JSON = {}
        self.events: list[bytes] = []
        self.slow = 0
        self.cache: JSON = {}
        self.is_partial = False
        self.jobs: list[JSON] = []
        self.course: list[JSON] = []  # what one look after the other at a job, or at the queue, finds
        self.is_gone = False
        self._troubles: deque[Trouble | None] = deque()
        self._ids = itertools.count(1)
        self._lock = threading.Lock()  # guards everything above: each connection has its thread

    def trouble(self, *troubles: Trouble | None) -> None:
        """Meet the next requests with these; None is none."""
        self._troubles.extend(troubles)

    def asked(self, method: str, path: str) -> int:
        """Return how often the path, a regular expression, was asked."""
        return sum(asked.method == method and bool(re.fullmatch(path, asked.path)) for asked in self.requests)

    def store(self, name: str = "default") -> Store:
        return next(store for store in self.stores.values() if name in (store.id, store.name))

    def names(self, name: str = "default") -> dict[str, bytes]:
        """Return the completed files of a store, by the path that ingest knows them by."""
        files = (file for file in self.store(name).files.values() if file["status"] == "completed")
        return {file["attributes"]["path"]: self.uploads[file["id"]].data for file in files}

    def take(self, asked: Asked) -> Any:
        with self._lock:
            self.requests.append(asked)
            if self._troubles and (trouble := self._troubles.popleft()):
                return trouble
            for method, pattern, answer in _ROUTES:
                found = re.fullmatch(pattern, asked.path)
                if found and method == asked.method:
                    try:
                        return answer(self, asked, *map(unquote, found.groups()))
                    except (NotFound, StopIteration):
                        return Status(404, f"Nothing is at '{asked.path}'.", "not_found")
            return Status(404, f"There is no '{asked.path}' here.", "not_found")

    def new_id(self, prefix: str) -> str:
        return f"{prefix}{next(self._ids)}"

    # Stores

    def list_stores(self, asked: Asked) -> JSON:
        return _page([shown(store) for store in self.stores.values()], asked)

    def create_store(self, asked: Asked) -> JSON:
        store = Store(self.new_id("vs_"), asked.json["name"])
        self.stores[store.id] = store
        return shown(store)

    def show_store(self, _: Asked, name: str) -> JSON:
        return shown(self._find(name))

    def delete_store(self, _: Asked, name: str) -> JSON:
        del self.stores[self._find(name).id]
        return {"id": name, "object": "vector_store.deleted", "deleted": True}

    def search(self, _: Asked, name: str) -> JSON:
        self._find(name)
        return {"object": "vector_store.search_results.page", "data": self.hits, "has_more": False}

    def _find(self, name: str) -> Store:
        for store in self.stores.values():
            if name in (store.id, store.name):
                return store
        raise NotFound

    # Files

    def upload(self, asked: Asked) -> JSON:
        head = f"content-type: {asked.headers['content-type']}\r\n\r\n".encode()
        form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + asked.body)
        part = next(part for part in form.iter_parts() if part.get_filename())
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        upload = Upload(self.new_id("file-"), str(part.get_filename()), content)
        self.uploads[upload.id] = upload
        return {"id": upload.id, "object": "file", "filename": upload.filename}

    def delete_file(self, _: Asked, file_id: str) -> JSON:
        if self.uploads.pop(file_id, None) is None:
            raise NotFound
        for store in self.stores.values():
            store.files.pop(file_id, None)
        return {"id": file_id, "object": "file", "deleted": True}

    # Files in stores

    def list_files(self, asked: Asked, store_id: str) -> JSON:
        wanted = asked.query.get("filter")
        files = [file for file in self._find(store_id).files.values() if wanted in (None, file["status"])]
        return _page([self._seen(file) for file in files], asked)

    def show_file(self, _: Asked, store_id: str, file_id: str) -> JSON:
        found = self._find(store_id).files.get(file_id)
        if found is None:
            raise NotFound
        return self._seen(found)

    def update_file(self, asked: Asked, store_id: str, file_id: str) -> JSON:
        file = self._find(store_id).files[file_id]
        file["attributes"] = asked.json["attributes"]
        return self._seen(file)

    def create_batch(self, asked: Asked, store_id: str) -> JSON | Status:
        store, batch_id = self._find(store_id), self.new_id("vsfb_")
        files = asked.json["files"]
        if any(len(str(file["attributes"]["path"])) > 512 for file in files):
            return Status(400, "'attributes': a value is too long.", "invalid_value")
        store.batches[batch_id] = [file["file_id"] for file in files]
        for file in files:
            self.attach(store, file["file_id"], file["attributes"])
        return self.show_batch(asked, store_id, batch_id)

    def attach(self, store: Store, file_id: str, attributes: JSON, external_id: str | None = None) -> JSON:
        bad = self.uploads[file_id].data.startswith(b"BAD")
        store.files[file_id] = {
            "id": file_id,
            "object": "vector_store.file",
            "status": "failed" if bad else "completed",
            "last_error": {"code": "invalid_file", "message": "It is bad."} if bad else None,
            "attributes": attributes,
            "external_id": external_id,
            "looks": self.slow,
        }
        return self._seen(store.files[file_id])

    def show_batch(self, _: Asked, store_id: str, batch_id: str) -> JSON:
        store = self._find(store_id)
        files = [self._seen(store.files[file_id]) for file_id in store.batches[batch_id]]
        waiting = any(file["status"] == "in_progress" for file in files)
        return {"id": batch_id, "status": "in_progress" if waiting else "completed"}

    def batch_files(self, asked: Asked, store_id: str, batch_id: str) -> JSON:
        store = self._find(store_id)
        return _page([self._seen(store.files[file_id]) for file_id in store.batches[batch_id]], asked)

    def upsert(self, asked: Asked) -> JSON:
        store = self._find(asked.json["store"])
        rows = []
        for document in asked.json["documents"]:
            upload = Upload(self.new_id("file-"), document["external_id"], document["text"].encode())
            self.uploads[upload.id] = upload
            rows.append(self.attach(store, upload.id, document["attributes"], document["external_id"]))
        return {"object": "list", "vector_store_id": store.id, "seq": 1, "data": rows}

    def _seen(self, file: JSON) -> JSON:
        file["looks"] -= 1
        seen = {**file, "status": "in_progress" if file["looks"] >= 0 else file["status"]}
        del seen["looks"]
        return seen

    # Jobs

    def list_jobs(self, asked: Asked) -> JSON:
        return _page(self.jobs, asked)

    def show_job(self, _: Asked, job_id: str) -> JSON:
        found = next(job for job in self.jobs if job["id"] == job_id)
        return self.course.pop(0) if self.course else found

    def retry_job(self, _: Asked, job_id: str) -> JSON:
        return self._settle(job_id, "queued")

    def cancel_job(self, _: Asked, job_id: str) -> JSON:
        return self._settle(job_id, "cancelled")

    def _settle(self, job_id: str, status: str) -> JSON:
        found = next(job for job in self.jobs if job["id"] == job_id)
        found["status"] = status
        return found

    def show_queue(self, _: Asked) -> JSON:
        return self.course.pop(0)

    # The cache

    def show_cache(self, _: Asked) -> JSON:
        return self.cache

    def purge_cache(self, _: Asked) -> JSON:
        return {"object": "ragagent.cache.purge", "local": 3, "redis": 7, "complete": not self.is_partial}

    # Answers

    def chat(self, asked: Asked) -> JSON | list[bytes]:
        return self.events if asked.json.get("stream") else self.completion


def shown(store: Store) -> JSON:
    statuses = [file["status"] for file in store.files.values()]
    counts = {state: statuses.count(state) for state in ("in_progress", "completed", "failed", "cancelled")}
    return {
        "id": store.id,
        "object": "vector_store",
        "created_at": 1_700_000_000,
        "name": store.name,
        "metadata": {},
        "status": "completed",
        "usage_bytes": 2048,
        "file_counts": {**counts, "total": len(statuses)},
    }


def _page(items: list[JSON], asked: Asked) -> JSON:
    """Return two items at most, so that whoever lists has to turn pages."""
    ids = [item["id"] for item in items]
    after = asked.query.get("after")
    start = ids.index(after) + 1 if after in ids else 0
    data = items[start : start + 2]
    more = start + 2 < len(items)
    return {"object": "list", "data": data, "last_id": data[-1]["id"] if data else None, "has_more": more}


_S = "/v1/vector_stores/([^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", "/v1/vector_stores", FakeRagagent.list_stores),
    ("POST", "/v1/vector_stores", FakeRagagent.create_store),
    ("GET", _S, FakeRagagent.show_store),
    ("DELETE", _S, FakeRagagent.delete_store),
    ("POST", f"{_S}/search", FakeRagagent.search),
    ("POST", "/v1/files", FakeRagagent.upload),
    ("DELETE", "/v1/files/([^/]+)", FakeRagagent.delete_file),
    ("GET", f"{_S}/files", FakeRagagent.list_files),
    ("GET", f"{_S}/files/([^/]+)", FakeRagagent.show_file),
    ("POST", f"{_S}/files/([^/]+)", FakeRagagent.update_file),
    ("POST", f"{_S}/file_batches", FakeRagagent.create_batch),
    ("GET", f"{_S}/file_batches/([^/]+)", FakeRagagent.show_batch),
    ("GET", f"{_S}/file_batches/([^/]+)/files", FakeRagagent.batch_files),
    ("POST", "/v1/ragagent/documents", FakeRagagent.upsert),
    ("GET", "/v1/ragagent/jobs", FakeRagagent.list_jobs),
    ("GET", "/v1/ragagent/jobs/([^/]+)", FakeRagagent.show_job),
    ("POST", "/v1/ragagent/jobs/([^/]+)/retry", FakeRagagent.retry_job),
    ("POST", "/v1/ragagent/jobs/([^/]+)/cancel", FakeRagagent.cancel_job),
    ("GET", "/v1/ragagent/queue", FakeRagagent.show_queue),
    ("GET", "/v1/ragagent/cache", FakeRagagent.show_cache),
    ("POST", "/v1/ragagent/cache/purge", FakeRagagent.purge_cache),
    ("POST", "/v1/chat/completions", FakeRagagent.chat),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeRagagent

    def _handle(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        headers = {key.lower(): value for key, value in self.headers.items()}
        answer = self.fake.take(Asked(self.command, url.path, headers, query, self._body()))
        if self.fake.is_gone or isinstance(answer, Hangup | Gone):
            # Connections that were open before have threads of their own: they end here, at their next request.
            self.close_connection = True
            if isinstance(answer, Gone):
                self.fake.is_gone = True
                self.server.shutdown()
                self.server.server_close()
        elif isinstance(answer, Raw):
            self._send(answer.status, answer.body)
        elif isinstance(answer, Status):
            error = {"message": answer.message, "type": "told", "param": None, "code": answer.code}
            self._send(answer.status, json.dumps({"error": error}).encode(), answer.retry_after, answer.is_final)
        elif isinstance(answer, list):
            self._send(200, b"".join(answer))
        else:
            self._send(200, json.dumps(answer).encode())

    do_GET = do_POST = do_DELETE = _handle

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, body: bytes, retry_after: int | None = None, is_final: bool = False) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        if retry_after is not None:
            self.send_header("retry-after", str(retry_after))
        if is_final:
            self.send_header("x-should-retry", "false")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def fake_ragagent() -> Iterator[FakeRagagent]:
    fake = FakeRagagent()
    handler = type("Handler", (_Handler,), {"fake": fake})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
