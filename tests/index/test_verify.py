"""Any flipped bit, cut or missing file that an index has is found."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from index.conftest import STORE, Bed, row, rows
from ragagent.errors import Invalid
from ragagent.index import verify as module
from ragagent.index.verify import verify


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of a graph, a graph of bytes, a delta and two segments, with dead in all of them."""
    root = Path(tmp_path_factory.mktemp("whole")) / "index"
    with ExitStack() as stack:
        bed = Bed(root, stack)
        with bed.writer(hnsw_rows=1) as writer:
            writer.publish(1, rows(range(60)))
            writer.compact()
        with bed.writer(hnsw_rows=1, vectors="int8") as writer:
            writer.publish(2, rows(range(60, 80)), dead=[1], forget=[1])
            writer.compact()
            writer.prune()
            writer.publish(3, [*rows(range(80, 90)), row(61, seed=1)], dead=[2, 62], forget=[2, 62])
            writer.publish(4, rows(range(90, 93)), dead=[81], forget=[81])
    return root


@pytest.fixture
def copy(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.0)
    shutil.copytree(whole, tmp_path / "index")
    return tmp_path / "index"


def named(root: Path) -> list[Path]:
    """Every file of the index that has a byte in it."""
    return sorted(path for path in (root / STORE).rglob("*") if path.is_file() and path.stat().st_size)


def flip(path: Path, generator: random.Random) -> str:
    data = bytearray(path.read_bytes())
    at, bit = generator.randrange(len(data)), generator.randrange(8)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    return f"bit {bit} of byte {at} of {path}"


def cut(path: Path, generator: random.Random) -> str:
    data = path.read_bytes()
    left = generator.randrange(len(data))
    path.write_bytes(data[:left])
    return f"{path} after {left} bytes"


def lose(path: Path, generator: random.Random) -> str:
    path.unlink()
    return f"{path}"


def test_a_whole_index_has_no_problem(copy: Path) -> None:
    assert verify(copy, STORE) == []
    assert verify(copy, "vs_none") == []
    kinds = {path.suffix for path in named(copy)}
    assert kinds >= {".faiss", ".i64", ".i32", ".f32", ".json", ".del", ".term", ".fieldnorm", ""}


@pytest.mark.parametrize(("harm", "times"), [(flip, 5), (cut, 2), (lose, 1)], ids=["flipped", "cut", "gone"])
def test_harm_to_any_file_is_found(copy: Path, harm: Callable[[Path, random.Random], str], times: int) -> None:
    generator = random.Random(7)
    for path in named(copy):
        data = path.read_bytes()
        for _ in range(times):
            what = harm(path, generator)
            assert verify(copy, STORE), what
            path.write_bytes(data)
    assert verify(copy, STORE) == []


def test_every_bit_of_what_tantivy_does_not_protect_is_held(copy: Path) -> None:
    generator = random.Random(8)
    for name in ("lexical/meta.json", "lexical/.managed.json"):
        path = copy / STORE / name
        data = path.read_bytes()
        for _ in range(60):
            what = flip(path, generator)
            assert verify(copy, STORE), what
            path.write_bytes(data)


def test_a_missing_lock_is_found(copy: Path) -> None:
    (copy / STORE / "000002" / "LOCK").unlink()
    assert verify(copy, STORE) == ["Generation 000002 is missing, or its lock file is."]


def test_what_no_manifest_counts_is_no_problem(copy: Path) -> None:
    with open(copy / STORE / "000003.delta" / "vectors.f32", "ab") as file:
        file.write(b"torn by a crash")
    assert verify(copy, STORE) == []


def test_a_name_that_is_none_is_refused(copy: Path) -> None:
    with pytest.raises(Invalid):
        verify(copy, "../x")


def test_an_index_that_changes_meanwhile_has_no_problem(bed: Bed) -> None:
    writer = bed.writer(hnsw_rows=30)
    stop = threading.Event()
    found: list[str] = []

    def look() -> None:
        while not stop.is_set():
            found.extend(verify(bed.root, STORE))

    thread = threading.Thread(target=look)
    thread.start()
    for seq in range(1, 40):
        writer.publish(seq, rows(range(seq * 5, seq * 5 + 5)), dead=[seq * 3], forget=[seq * 3])
        if seq % 6 == 0:
            writer.compact()
            writer.prune()
    stop.set()
    thread.join()
    assert found == []
