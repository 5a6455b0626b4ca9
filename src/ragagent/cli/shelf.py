"""What a store holds of the files that `ragagent ingest` has put there, and the steps that bring a file up to date.

Each file carries two attributes, `path` (its name) and `sha256` (of its bytes). From these alone the next run knows,
before it sends a byte, what is there already and what has changed. A new version is taken in first, and its
predecessors are deleted once it is completed: a question asked meanwhile finds one or, for a moment, both, and never
none. A run that was interrupted leaves at worst an extra version, and the next run clears it away.

A file's way is `send` (hash, compare, upload), then, by the batch, `attach` and `settle`: attached one by one, each
waits for a publication of its own, which made 1,000 small files five times slower (`load.py`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ragagent.cli.client import JSON, Client, Unreachable
from ragagent.cli.selection import Source
from ragagent.errors import RagagentError
from ragagent.types import Attributes

WAIT_SECONDS = 600.0  # without any progress of the indexer; beyond that it is the operator's to look at
FULL = "rate_limit_exceeded"  # the queue is: the client has waited already when it tells us so
POLL_SECONDS = (0.02, 0.5)  # between two looks, growing from the first to the second

Result = Literal["added", "replaced", "updated", "unchanged", "stored", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file: `updated` is new attributes on old content; a `stored` text may have been there before."""

    name: str
    result: Result
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """A file in the store: one state of the content that its `path` names."""

    id: str
    status: str
    error: str | None
    attributes: Attributes

    @classmethod
    def of(cls, file: JSON) -> Version:
        error = (file["last_error"] or {}).get("message")
        return cls(file["id"], file["status"], error, file["attributes"] or {})

    @property
    def is_good(self) -> bool:
        return self.status == "completed"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that the server has and the store has not yet, and the versions that it is to replace."""

    name: str
    file_id: str
    attributes: Attributes
    older: Sequence[Version]


@dataclass(frozen=True, slots=True)
class Batch:
    id: str
    uploads: Sequence[Upload]


class Shelf:
    """One store, as far as the files go that are to be loaded. `send` may run in several threads at a time."""

    def __init__(self, client: Client, store_id: str, attributes: Attributes) -> None:
        self._client = client
        self._store_id = store_id
        self._files = f"/v1/vector_stores/{store_id}/files"
        self._batches = f"/v1/vector_stores/{store_id}/file_batches"
        self._attributes = attributes
        self._versions: dict[str, list[Version]] = {}

    def look(self, names: Collection[str]) -> None:
        """Learn which versions of these files there are, oldest first."""
        for file in self._client.items(self._files):
            version = Version.of(file)
            name = version.attributes.get("path")
            if isinstance(name, str) and name in names:
                self._versions.setdefault(name, []).append(version)

    def send(self, source: Source) -> Upload | Outcome:
        """Upload the file if the store has not its content; else see to what is there. Raises Unreachable."""
        older = self._versions.get(source.name, [])
        try:
            with source.path.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            same = _newest(older, digest)
            return self._kept(source.name, same, older) if same else self._uploaded(source, digest, older)
        except OSError as exc:
            return Outcome(source.name, "failed", exc.strerror or str(exc))
        except Unreachable:
            raise  # It is not this file: the others would fail alike.
        except RagagentError as exc:
            return Outcome(source.name, "failed", exc.message)

    def attach(self, uploads: Sequence[Upload]) -> tuple[list[Batch], list[Outcome]]:
        """Put the uploads into the store, together; where that is refused, each by itself, so that one fails alone."""
        try:
            files = [{"file_id": upload.file_id, "attributes": dict(upload.attributes)} for upload in uploads]
            return [Batch(self._patiently(files)["id"], uploads)], []
        except Unreachable:
            raise
        except RagagentError as exc:
            if len(uploads) == 1 or exc.code == FULL:
                self.discard(uploads)
                return [], [Outcome(upload.name, "failed", exc.message) for upload in uploads]
        apart = [self.attach([upload]) for upload in uploads]
        return [batch for batches, _ in apart for batch in batches], [failed for _, some in apart for failed in some]

    def settle(self, batch: Batch) -> Iterator[Outcome]:
        """Wait for the batch, and clear away what its files replace. Raises Unreachable."""
        self._wait(lambda: self._client.get(f"{self._batches}/{batch.id}"))
        versions = {file["id"]: Version.of(file) for file in self._client.items(f"{self._batches}/{batch.id}/files")}
        for upload in batch.uploads:
            try:
                yield self._taken_in(upload, versions.get(upload.file_id))
            except Unreachable:
                raise
            except RagagentError as exc:
                yield Outcome(upload.name, "failed", exc.message)

    def discard(self, uploads: Iterable[Upload]) -> None:
        """Delete what was uploaded and will not be attached: in no store, nobody would ever find it."""
        for upload in uploads:
            self._client.delete(f"/v1/files/{upload.file_id}")

    def put_text(self, external_id: str, text: str) -> Outcome:
        """Make the store hold this text under the caller's id; the server compares and replaces."""
        document = {"external_id": external_id, "text": text, "attributes": dict(self._attributes)}
        reply = self._client.post("/v1/ragagent/documents", {"store": self._store_id, "documents": [document]})
        version = self._settled(Version.of(reply["data"][0]))
        return Outcome(external_id, "stored") if version.is_good else _failed(external_id, version)

    def _patiently(self, files: Sequence[JSON]) -> JSON:
        """Attach the files; where the queue is full, wait until there is room."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                return self._client.post(self._batches, {"files": files})
            except RagagentError as exc:
                if exc.code != FULL or time.monotonic() > deadline:
                    raise

    def _uploaded(self, source: Source, digest: str, older: Sequence[Version]) -> Upload:
        """Upload the file. Its attributes are those of the version that it replaces, and the given ones over them."""
        inherited = next((version.attributes for version in reversed(older) if version.is_good), {})
        attributes = {**inherited, **self._attributes, "path": source.name, "sha256": digest}
        with source.path.open("rb") as content:
            filename = source.name.rpartition("/")[2]
            file = self._client.upload("/v1/files", filename, content, purpose="assistants")
        return Upload(source.name, file["id"], attributes, older)

    def _kept(self, name: str, same: Version, older: Sequence[Version]) -> Outcome:
        """Finish what an earlier run began with this content."""
        version = self._settled(same)
        self._clear(version, older)
        if not version.is_good:
            return _failed(name, version)
        return Outcome(name, "updated" if self._attributed(version) else "unchanged")

    def _taken_in(self, upload: Upload, found: Version | None) -> Outcome:
        if found is None:
            return Outcome(upload.name, "failed", "It was deleted by someone else while it was taken in.")
        version = self._settled(found)
        self._clear(version, upload.older)
        if not version.is_good:
            return _failed(upload.name, version)
        return Outcome(upload.name, "replaced" if any(older.is_good for older in upload.older) else "added")

    def _clear(self, newest: Version, older: Sequence[Version]) -> None:
        """Delete what `newest` replaces. If it failed, the last good version stays, and only older failures go."""
        for version in older:
            if version.id != newest.id and (newest.is_good or not version.is_good):
                self._delete(version)

    def _delete(self, version: Version) -> None:
        try:
            self._client.delete(f"/v1/files/{version.id}")
        except RagagentError as exc:
            if exc.code != "not_found":  # Another run was faster.
                raise

    def _attributed(self, version: Version) -> bool:
        """Lay the given attributes over the version's; return whether that changed any."""
        wanted = {**version.attributes, **self._attributes}
        if wanted == version.attributes:
            return False
        self._client.post(f"{self._files}/{version.id}", {"attributes": wanted})
        return True

    def _settled(self, version: Version) -> Version:
        """Return the version once it is searchable, or has failed."""
        if version.status != "in_progress":
            return version
        return Version.of(self._wait(lambda: self._client.get(f"{self._files}/{version.id}")))

    def _wait(self, look: Callable[[], JSON]) -> JSON:
        """Look until it is no longer in progress, as long as anything moves."""
        pause, longest = POLL_SECONDS
        before, deadline = None, time.monotonic() + WAIT_SECONDS
        while (found := look())["status"] == "in_progress":
            if found != before:
                before, deadline = found, time.monotonic() + WAIT_SECONDS
            if time.monotonic() > deadline:
                raise RagagentError(f"The indexer has not moved for {WAIT_SECONDS:.0f} seconds; the file is not lost.")
            time.sleep(pause)
            pause = min(pause * 1.5, longest)
        return found


def _newest(versions: Sequence[Version], digest: str) -> Version | None:
    """Return the newest version of that content that is, or is about to be, in service."""
    for version in reversed(versions):
        if version.attributes.get("sha256") == digest and version.status in ("completed", "in_progress"):
            return version
    return None


def _failed(name: str, version: Version) -> Outcome:
    return Outcome(name, "failed", version.error or f"It is {version.status}.")
