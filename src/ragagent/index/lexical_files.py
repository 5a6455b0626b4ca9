"""The bytes of a Tantivy directory, checked as Tantivy does not: every file of every segment, and the lists of them.

A segment's file ends in a footer: JSON with the version that wrote it and the CRC-32 of all before, then the JSON's
length and 1337, four bytes each. `meta.json` and `.managed.json` carry no checksum; every letter of them is held by
something else: by how they are written, by the schema, by the files they name, by what is counted in those, and
`opstamp` by the manifest.
"""

from __future__ import annotations

import json
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import tantivy

from ragagent.errors import Damaged
from ragagent.index import lexical
from ragagent.index.lexical import MANAGED, META, SEGMENT_PARTS

_VERSION_PARTS = ("major", "minor", "patch", "index_format_version")
_FOOTER = 8
_MAGIC = 1337
_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+), index_format v(\d+)")

Version = tuple[int, ...]


def check(path: Path, commit: int, living: int) -> Iterator[str]:
    """Yield what is wrong with the lexical index in the directory `path`, one sentence each.

    It must be of the `commit` that the manifest names, and hold a document for each `living` row.
    """
    try:
        meta = _meta(path)
        managed = _managed(path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, Damaged) as exc:
        yield f"The lexical index cannot be read: {exc}"
        return
    if meta["opstamp"] != commit:
        yield f"The lexical index is of commit {meta['opstamp']}; the manifest names {commit}."
    documents, versions = 0, {_installed()}
    deletions: list[tuple[str, Version]] = []
    for segment in meta["segments"]:
        checked = _Segment(path, segment, managed)
        yield from checked.problems
        documents += checked.living
        versions |= checked.versions
        deletions += checked.deletions
    for name, version in deletions:
        if version not in versions:
            yield f"File 'lexical/{name}' is of version {version}, which wrote no other."
    if documents < living:
        yield f"The lexical index holds {documents} chunks; the manifest counts {living} that live."


class _Segment:
    """One segment of `meta.json`, read through."""

    def __init__(self, path: Path, meta: Mapping[str, Any], managed: Sequence[str]) -> None:
        self._path = path
        self.problems: list[str] = []
        self.living = self.documents = 0
        self.versions: set[Version] = set()
        self.deletions: list[tuple[str, Version]] = []
        name = str(meta["segment_id"]).replace("-", "")
        bodies = {part: self._body(f"{name}.{part}") for part in SEGMENT_PARTS}
        norms = bodies["fieldnorm"]
        # One byte a document, then a list of fields, then that list's length.
        self._expect(f"{name}.fieldnorm", "documents", len(norms) - 4 - _number(norms[-4:]), meta["max_doc"])
        self.living = int(meta["max_doc"])
        names = [f"{name}.{part}" for part in SEGMENT_PARTS]
        if len(self.versions) > 1:
            self.problems.append(f"The files of segment '{name}' are of different versions: {sorted(self.versions)}.")
        if meta["deletes"] is not None:
            names.append(f"{name}.{meta['deletes']['opstamp']}.del")
            self._check_deletions(names[-1], meta)
        self.problems += [f"File 'lexical/{one}' is in no list of files." for one in names if one not in managed]

    def _check_deletions(self, name: str, meta: Mapping[str, Any]) -> None:
        seen, self.versions = self.versions, set()
        body = self._body(name)
        self.deletions = [(name, version) for version in self.versions]
        self.versions = seen
        self.living = int.from_bytes(body[4:], "little").bit_count()
        self._expect(name, "documents", _number(body[:4]), meta["max_doc"])
        self._expect(name, "deleted documents", _number(body[:4]) - self.living, meta["deletes"]["num_deleted_docs"])

    def _body(self, name: str) -> bytes:
        """Return what stands before the file's footer, which must fit to it; nothing, when there is no such file."""
        try:
            data = (self._path / name).read_bytes()
            size = _number(data[-_FOOTER:-4])
            footer = data[-_FOOTER - size : -_FOOTER]
            fields = json.loads(footer)
            version = tuple(fields["version"][part] for part in _VERSION_PARTS)
            body = data[: len(data) - _FOOTER - size]
            as_written = _rendered({"version": fields["version"], "crc": zlib.crc32(body)})
            if (_number(data[-4:]), footer, len(fields["version"])) != (_MAGIC, as_written, len(_VERSION_PARTS)):
                raise Damaged(f"File 'lexical/{name}' does not match its checksum.")
        except FileNotFoundError:
            self.problems.append(f"File 'lexical/{name}' is missing.")
            return b""
        except (ValueError, TypeError, KeyError, AttributeError, Damaged):
            self.problems.append(f"File 'lexical/{name}' does not match its checksum.")
            return b""
        self.versions.add(version)
        return body

    def _expect(self, name: str, what: str, found: int, wanted: int) -> None:
        if found != wanted and not self.problems:  # Else it is told already.
            self.problems.append(f"File 'lexical/{name}' has {found} {what}; meta.json counts {wanted}.")


def _meta(path: Path) -> dict[str, Any]:
    """Return what `meta.json` says. Raises Damaged when a letter of it is not as Tantivy writes it."""
    data = (path / META).read_bytes()
    meta = json.loads(data)
    if data != json.dumps(meta, indent=2).encode() + b"\n":
        raise Damaged(f"'{META}' is not as it was written.")
    model = _model()
    if meta.keys() != model.keys() or any(meta[key] != model[key] for key in ("index_settings", "schema")):
        raise Damaged(f"'{META}' does not describe an index of ours.")
    if not all(_is_segment(segment) for segment in meta["segments"]):
        raise Damaged(f"'{META}' has a segment that is none.")
    return dict(meta)


@cache
def _model() -> dict[str, Any]:
    """Return the `meta.json` of an empty index of ours, as this Tantivy writes it."""
    with tempfile.TemporaryDirectory() as folder:
        lexical.create(Path(folder) / "lexical")
        return dict(json.loads((Path(folder) / "lexical" / META).read_bytes()))


def _is_segment(meta: Mapping[str, Any]) -> bool:
    deletes = meta["deletes"] or {"num_deleted_docs": 0, "opstamp": 0}
    return meta.keys() == {"segment_id", "max_doc", "deletes"} and deletes.keys() == {"num_deleted_docs", "opstamp"}


def _managed(path: Path) -> list[str]:
    data = (path / MANAGED).read_bytes()
    names = json.loads(data)
    if data != _rendered(names) + b"\n" or META not in names:
        raise Damaged(f"'{MANAGED}' is not as it was written.")
    return list(names)


def _rendered(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _installed() -> Version:
    found = _VERSION.search(tantivy.__version__)  # type: ignore[attr-defined]
    return tuple(int(part) for part in found.groups()) if found else ()
