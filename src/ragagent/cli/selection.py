"""Which files `ragagent ingest` takes, and the name by which it will know each of them again.

The name is the path from the directory that was given, that directory's own name included: `ingest docs` and, later,
`ingest docs/guide.md` mean the same `docs/guide.md`, and the README of one project never replaces another's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import click

# What a directory is searched for. A file that is named, or that --glob finds, is sent whatever it is called.
SUFFIXES = frozenset((".txt", ".md", ".html", ".htm", ".pdf", ".docx", ".csv", ".json", ".jsonl"))


@dataclass(frozen=True, slots=True)
class Source:
    path: Path
    name: str


@dataclass(slots=True)
class Selection:
    """The files in order, how many others were passed over, and the directories that could not be read."""

    sources: dict[str, Source] = field(default_factory=dict)
    skipped: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: Path, root: Path) -> None:
        """Take a file under its name below `root`. Raises UsageError when another one has that name."""
        name = _readable(path.relative_to(root).as_posix())
        earlier = self.sources.setdefault(name, Source(path, name))
        if earlier.path != path:
            raise click.UsageError(
                f"'{earlier.path}' and '{path}' would both be known as '{name}'; ingest them into stores of their own."
            )

    def unread(self, error: OSError) -> None:
        self.unreadable.append((_readable(str(error.filename)), error.strerror or str(error)))


def select(paths: Sequence[str], pattern: str | None) -> Selection:
    """Return the files that are named, and those below the directories that are. Raises UsageError."""
    selection = Selection()
    for given in paths:
        path = Path(os.path.abspath(given))
        if path.is_dir():
            _walk(path, pattern, selection)
        elif not path.exists():
            raise click.BadParameter(f"'{given}' does not exist.", param_hint="PATH")
        else:
            selection.add(path, path.parent.parent)
    return selection


def _walk(directory: Path, pattern: str | None, selection: Selection) -> None:
    for folder, folders, files in os.walk(directory, onerror=selection.unread):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            path = Path(folder, name)
            if path.is_file() and _is_wanted(path, directory.parent, pattern):
                selection.add(path, directory.parent)
            else:
                selection.skipped += 1


def _is_wanted(path: Path, root: Path, pattern: str | None) -> bool:
    if pattern is None:
        return path.suffix.lower() in SUFFIXES
    return PurePosixPath(path.relative_to(root)).match(pattern)


def _readable(path: str) -> str:
    """Return the path as text; bytes that are not UTF-8 cannot travel in JSON."""
    return os.fsencode(path).decode("utf-8", "replace")
