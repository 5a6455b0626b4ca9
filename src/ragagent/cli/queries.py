"""Queries from a file, for a comparison: plain lines, or a golden set of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ragagent.config import Config
from ragagent.engine.publishing.comparing import Probe
from ragagent.errors import Invalid
from ragagent.providers import registry
from ragagent.store.editions import Edition


async def probes_of(settings: Config, old: Edition, new: Edition, path: Path) -> list[Probe]:
    """Return the queries of the file, with vectors from both models."""
    wanted = [_query(line, number) for number, line in enumerate(_lines(path), 1)]
    embedders = registry.embedders(settings)
    try:
        texts = [text for text, _ in wanted]
        vectors = [await embedders.of(each.model, each.dimension, "The store").embed(texts) for each in (old, new)]
    finally:
        await embedders.aclose()
    return [
        Probe(text, first, second, wanted=document)
        for (text, document), first, second in zip(wanted, *vectors, strict=True)
    ]


def _lines(path: Path) -> Sequence[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as exc:
        raise Invalid(f"File '{path}' cannot be read: {exc}.") from exc
    if not lines:
        raise Invalid(f"There is no query in '{path}'.")
    return lines


def _query(line: str, number: int) -> tuple[str, str | None]:
    """Return a line's query and what should be found by it."""
    if not line.startswith("{"):
        return line, None
    try:
        entry = json.loads(line)
        return str(entry["query"]), str(entry.get("external_id") or entry["file_id"])
    except (ValueError, KeyError) as exc:
        raise Invalid(f'Line {number} must hold "query" and "external_id" or "file_id": {line:.80}') from exc
