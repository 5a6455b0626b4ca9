"""An import: whole documents, once each, however often it is run and wherever it was killed."""

from __future__ import annotations

import dataclasses
import io
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from engine.conftest import CALLER, World
from ragagent.config import Config, Data
from ragagent.engine.ingest import NewDocument
from ragagent.engine.keeping.transfer import export as exports
from ragagent.engine.keeping.transfer import intake, lines
from ragagent.engine.keeping.transfer.intake import Intake, Report
from ragagent.errors import Conflict, Unavailable
from ragagent.store import jobs
from ragagent.types import EmbeddingSpace

pytestmark = pytest.mark.anyio

SPACE = EmbeddingSpace("bag-of-words", 32)
TEXTS = {"a": "A reload drops no request.", "b": "A backup is one verified file.", "c": "重载不丢请求。"}
STORE = {"type": "store", "id": "vs_hand", "name": "docs", "model": "bag-of-words", "dimension": 32}


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "other").mkdir()
    async with World(tmp_path / "other") as opened:
        yield opened


async def filled(world: World) -> World:
    await world.store()
    for name, text in TEXTS.items():
        await world.upsert(name, text, attributes={"name": name})
    await world.attach(b"An uploaded file speaks of uploads.", "upload.txt")
    await world.settle()
    return world


def exported(world: World, vectors: exports.Vectors = "base64") -> list[bytes]:
    held = io.BytesIO()
    exports.export(Data(dir=str(world.root)), held, (), vectors)
    return held.getvalue().splitlines(keepends=True)


def take(world: World, source: Iterable[bytes], space: EmbeddingSpace = SPACE, into: str | None = None) -> Report:
    return Intake(world.database, space, into=into, max_chars=1000, ring=lambda: None).run(source)


def told(report: Report) -> tuple[int, int, int, int, int]:
    return report.stores, report.added, report.queued, report.unchanged, report.failed


def by_hand(*fields: dict[str, Any]) -> list[bytes]:
    return [lines.encode(one) for one in (STORE, *fields)]


def text(external_id: str, content: str = "A reload.", **fields: Any) -> dict[str, Any]:
    return {"type": "document", "store": "vs_hand", "external_id": external_id, "text": content, **fields}


def piece(ordinal: int = 0, **fields: Any) -> dict[str, Any]:
    vector = [1.0] + [0.0] * 31
    return {"type": "chunk", "ordinal": ordinal, "start": 0, "end": 9, "text": "A reload.", "vector": vector, **fields}


async def answers(world: World) -> list[list[tuple[str, str, float]]]:
    found = [await world.retrieve(question) for question in ("reload request", "which file is verified?", "重载")]
    return [[(item.file_id, item.text, item.score) for item in retrieval.evidence] for retrieval in found]


# There and back


async def test_it_answers_the_same_elsewhere_and_exports_the_same(world: World, other: World) -> None:
    await filled(world)
    first = exported(world)
    assert told(take(other, first)) == (1, 4, 0, 0, 0)
    with other.database.read() as tx:
        assert jobs.depth(tx) == 0, "nothing is embedded anew"
    await other.settle()
    assert other.embedder.batches == []
    assert await answers(other) == await answers(world)
    assert exported(other)[1:] == first[1:]


async def test_run_twice_it_is_there_once(world: World, other: World) -> None:
    source = exported(await filled(world))
    take(other, source)
    assert told(take(other, source)) == (0, 0, 0, 4, 0)
    assert told(take(world, source)) == (0, 0, 0, 4, 0), "also where it came from"


async def test_without_vectors_everything_is_queued_and_embedded(world: World, other: World) -> None:
    source = exported(await filled(world), vectors="none")
    assert told(take(other, source)) == (1, 0, 4, 0, 0)
    assert told(take(other, source)) == (0, 0, 0, 4, 0), "what is queued is there"
    await other.settle()
    assert await answers(other) == await answers(world)


async def test_vectors_of_another_model_are_left_and_the_documents_embedded(world: World, other: World) -> None:
    source = exported(await filled(world))
    other.embedder.model = "another"
    report = take(other, source, EmbeddingSpace("another", 32))
    assert told(report) == (1, 0, 4, 0, 0)
    await other.settle()
    with other.database.read() as tx:
        assert tx.execute("SELECT DISTINCT model FROM vector_stores").fetchall()[0][0] == "another"
        assert tx.execute("SELECT count(*) FROM documents WHERE status = 'completed'").fetchone()[0] == 4


async def test_a_changed_document_replaces_the_older_version(other: World) -> None:
    take(other, by_hand(text("a", "The colour is green.")))
    await other.settle()
    assert told(take(other, by_hand(text("a", "The colour is yellow.")))) == (0, 0, 1, 0, 0)
    await other.settle()
    assert await other.search("colour") == ["The colour is yellow."]


async def test_into_a_store_of_another_name(world: World) -> None:
    source = exported(await filled(world))
    assert told(take(world, source, into="copy")) == (1, 4, 0, 0, 0)
    assert told(take(world, source, into="copy")) == (0, 0, 0, 4, 0)
    await world.settle()
    assert await world.search("verified", ["copy"]) == await world.search("verified", ["docs"])
    await world.ingest.remove(CALLER, "docs", ["a"])
    assert TEXTS["a"] in await world.search("reload request", ["copy"]), "a copy stands for itself"
    several = [*by_hand(), lines.encode({**STORE, "id": "vs_two", "name": "two"})]
    with pytest.raises(Conflict, match="several stores"):
        take(world, several, into="copy")


# What a line may have wrong


def refused(world: World, *fields: dict[str, Any]) -> list[tuple[int, str]]:
    return take(world, by_hand(*fields)).failures


async def test_a_bad_line_is_named_and_nothing_of_its_document_is_written(other: World) -> None:
    good, wrong = piece(), piece(1, vector="?")
    failures = refused(other, text("a", chunks=3), good, wrong, piece(2), text("b", chunks=1), good)
    assert failures == [(4, "field 'vector' is neither base64 of float32 nor a list of numbers")]
    with other.database.read() as tx:
        assert [row[0] for row in tx.execute("SELECT external_id FROM documents")] == ["b"]
        assert [row[0] for row in tx.execute("SELECT count(*) FROM files")] == [1]


async def test_each_kind_of_wrong_line_leaves_the_others(other: World) -> None:
    source = [
        *by_hand(text("a", chunks=1), piece()),
        b"{not JSON\n",  # between two whole documents, it harms neither
        *(lines.encode(one) for one in (piece(), text("b", "", chunks=1), piece(), text("c"))),
        b"\n",
        lines.encode({"type": "document", "store": "vs_unknown", "external_id": "d", "text": "x"}),
        lines.encode({"type": "song"}),
        lines.encode(text("e", chunks=2)),
        lines.encode(piece()),
    ]
    report = take(other, source)
    assert told(report) == (1, 1, 1, 0, 5)
    assert [(number, reason.partition(":")[0]) for number, reason in report.failures] == [
        (4, "it is not JSON in UTF-8"),
        (6, "field 'text'"),
        (10, "field 'store' must be the id of a store that stands before it"),
        (11, "field 'type' is 'song'"),
        (12, "the document has 1 of its 2 chunks"),
    ]


async def test_an_export_that_was_cut_off_is_told_and_goes_in_as_far_as_it_goes(world: World, other: World) -> None:
    source = exported(await filled(world))
    report = take(other, source[:-1])
    assert told(report)[1:] == (4, 0, 0, 1)
    assert "cut off" in report.failures[0][1]


async def test_only_so_many_failures_are_kept(other: World) -> None:
    report = take(other, [b"junk\n"] * 300)
    assert (report.failed, len(report.failures)) == (300, intake.MAX_FAILURES)


async def test_a_newer_format_is_refused_before_anything_is_written(other: World) -> None:
    with pytest.raises(Conflict, match="format 2; this version reads 1"):
        take(other, [lines.encode({"type": "export", "format": 2}), *by_hand(text("a"))])
    with other.database.read() as tx:
        assert tx.execute("SELECT count(*) FROM vector_stores").fetchone()[0] == 0


async def test_a_store_that_nobody_can_embed_for_is_refused(other: World) -> None:
    await other.store()
    with pytest.raises(Conflict, match=r"holds vectors of 'bag-of-words' .* configured embedder.* 'else'"):
        take(other, by_hand(text("a")), EmbeddingSpace("else", 32))


async def test_a_store_that_is_deleted_meanwhile_ends_it(other: World) -> None:
    def source() -> Iterable[bytes]:
        yield from by_hand(text("a"))
        with other.database.write() as tx:
            tx.execute("UPDATE vector_stores SET deleted_at = 1")

    with pytest.raises(Conflict, match="was deleted meanwhile"):
        take(other, source())


# How it writes


async def test_batches_are_bounded_and_each_one_rings(other: World) -> None:
    rung: list[int] = []

    def ring() -> None:
        with other.database.read() as tx:
            rung.append(jobs.depth(tx))

    source = by_hand(*(text(f"d{n}") for n in range(3 * intake.BATCH_DOCUMENTS + 1)))
    Intake(other.database, SPACE, into=None, max_chars=10**8, ring=ring).run(source)
    assert rung == [32, 64, 96, 97]
    rung.clear()
    large = "x" * (intake.BATCH_BYTES // 2)
    Intake(other.database, SPACE, into=None, max_chars=10**8, ring=ring).run(
        by_hand(*(text(f"l{n}", large) for n in range(4)))
    )
    assert rung == [99, 101]


async def test_killed_amid_it_and_run_again_it_is_complete_and_nothing_twice(world: World, other: World) -> None:
    await world.store()
    await world.ingest.upsert(CALLER, "docs", [NewDocument(f"d{n}", f"This is document {n}.") for n in range(100)])
    await world.settle()
    source = exported(world)
    path = other.root / "export.jsonl"
    _write(path, source)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from ragagent.types import EmbeddingSpace; from ragagent.engine.keeping.transfer.intake import Intake\n"
        "from ragagent.store.database import Database\n"
        "rung = []\n"
        "def ring():\n"
        "    rung.append(1)\n"
        "    if len(rung) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "space = EmbeddingSpace('bag-of-words', 32)\n"
        "with open(sys.argv[1], 'rb') as lines:\n"
        "    Intake(Database.open(Path(sys.argv[2])), space, into=None, max_chars=1000, ring=ring).run(lines)\n"
    )
    killed = _run(code, path, other.root / "ragagent.db")
    assert killed == -signal.SIGKILL
    assert told(take(other, source)) == (0, 36, 0, 64, 0)
    await other.settle()
    assert exported(other)[1:] == source[1:]


def _write(path: Path, source: list[bytes]) -> None:
    path.write_bytes(b"".join(source))


def _run(code: str, *arguments: Path) -> int:
    return subprocess.run([sys.executable, "-c", code, *arguments], timeout=60, check=False).returncode


async def test_a_data_directory_is_made_where_there_is_none(world: World, tmp_path: Path) -> None:
    source = exported(await filled(world))
    settings = dataclasses.replace(Config(), data=Data(dir=str(tmp_path / "made" / "data")))
    report = intake.take_in(settings, source)
    assert told(report) == (1, 0, 4, 0, 0), "its embedder is the configured one"
    assert settings.data.database.stat().st_mode & 0o777 == 0o600
    blocked = dataclasses.replace(Config(), data=Data(dir=str(settings.data.database / "x")))
    with pytest.raises(Unavailable, match="cannot be created"):
        intake.take_in(blocked, source)
