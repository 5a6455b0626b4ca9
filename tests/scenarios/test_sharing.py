"""N workers, one index in memory: what they share, what they hold, and that they let go of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import servers
from ragagent.index import manifest

SECONDS = 15.0
WORKER_MB = 90  # of memory that is a worker's own


@pytest.mark.parametrize(
    ("documents", "workers"), [(1000, 2), pytest.param(30_000, 4, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
)
def test_workers_share_one_mapped_generation(tmp_path: Path, documents: int, workers: int) -> None:
    env = {"RAGAGENT_SERVER__WORKERS": str(workers), "RAGAGENT_INGEST__MAX_DELTA_ROWS": str(documents // 2)}
    with servers.server(tmp_path, **env) as running:
        store = running.new_store("shared pages")
        for first in range(0, documents, 500):
            running.upsert(store, **{f"d{n}": _text(n) for n in range(first, first + 500)})
        index = running.data_dir / "index" / store
        servers.wait_until(lambda: running.counts(store)["in_progress"] == 0, 300)
        servers.wait_until(lambda: _generations(index)[-1:] > ["000001"], 60)
        pids = [worker["pid"] for worker in running.workers()]

        def is_mapped_by_all() -> bool:
            running.found(store, "topic 5")
            return all(_mapped(pid, index) for pid in pids)

        servers.wait_until(is_mapped_by_all, SECONDS)
        for n in range(20 * workers):
            running.found(store, f"paragraph {n} about topic {n}")
        mapped = {pid: servers.mappings(pid, index) for pid in pids}
        shares = sum(_pss_mb(pid) for pid in pids)
        size = sum(path.stat().st_size for path in index.rglob("*") if path.is_file()) / 1e6
    assert len(mapped) == workers
    for pid, mappings in mapped.items():
        assert any(name.endswith("vectors.faiss") for name in mappings), (pid, mappings)
        assert all(private == 0 for private in mappings.values()), (pid, mappings)
    assert shares <= size + workers * WORKER_MB


def test_a_generation_stays_while_a_stopped_reader_holds_it_and_goes_after(tmp_path: Path) -> None:
    env = {"RAGAGENT_INGEST__MAX_DELTA_ROWS": "10", "RAGAGENT_SERVER__HANG_SECONDS": "120"}
    with servers.server(tmp_path, **env) as running:
        store = running.new_store("held")
        index = running.data_dir / "index" / store
        _publish_generations(running, store, 1)
        stopped, other = (worker["pid"] for worker in running.workers())
        _until_mapped(running, store, stopped)
        _until_mapped(running, store, other)
        with _stopped(stopped):
            held = _mapped(stopped, index)
            assert held <= set(_generations(index))
            # The writer does not wait for it, and its writes are read on the other worker.
            _publish_generations(running, store, 3)
            assert held <= set(_generations(index))
            assert held - _named(index)
        _until_only_what_counts_is_left(running, store)


def test_old_generations_are_let_go_without_anyone_asking(tmp_path: Path) -> None:
    """A worker that no request reaches must not keep the disk full of what is over."""
    with servers.server(tmp_path, RAGAGENT_INGEST__MAX_DELTA_ROWS="10", RAGAGENT_SERVER__WORKERS="3") as running:
        store = running.new_store("let go")
        _publish_generations(running, store, 1)
        for worker in running.workers():
            _until_mapped(running, store, worker["pid"])
        _publish_generations(running, store, 2, look=False)
        _until_only_what_counts_is_left(running, store)


def _publish_generations(running: servers.Running, store: str, count: int, *, look: bool = True) -> None:
    """Write until so many generations have been published; each write is found, if anyone looks."""
    last = _current(running, store) or "000001"
    seen: set[str] = set()
    n = 0
    while len(seen) < count:
        assert n < 500, "nothing is published any more"
        word = f"word{time.monotonic_ns()}"
        assert running.upsert(store, **{f"d{n % 30}": f"Document {n} tells of {word}."}).status_code == 200
        if look:
            assert any(word in text for text in running.found(store, word))
        seen |= {_current(running, store)} - {last, ""}
        n += 1


def _until_mapped(running: servers.Running, store: str, pid: int) -> None:
    def is_mapped() -> bool:
        running.found(store, "document")
        return bool(_mapped(pid, running.data_dir / "index" / store))

    servers.wait_until(is_mapped, SECONDS)


def _until_only_what_counts_is_left(running: servers.Running, store: str) -> None:
    index = running.data_dir / "index" / store

    def is_so() -> bool:
        maps = set().union(*(_mapped(worker["pid"], index) for worker in running.workers()))
        return maps <= _named(index) == set(_generations(index))

    servers.wait_until(is_so, SECONDS)


def _named(index: Path) -> set[str]:
    """Return the generations that the manifest names."""
    found = manifest.read(index)
    assert found is not None
    numbers = [part.number for part in getattr(found[1], "parts", ())] or [found[1].generation]
    return {f"{number:06d}" for number in numbers}


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _current(running: servers.Running, store: str) -> str:
    """Return the name of the generation that the indexer has published last; empty before the first report."""
    shown = {entry["id"]: entry["generation"] for entry in running.control("status")["stores"]}
    return f"{shown[store]:06d}" if store in shown else ""


def _mapped(pid: int, index: Path) -> set[str]:
    """Return the generations that the process has mapped files of, its deltas aside."""
    return {
        Path(name).parent.name
        for name in servers.mappings(pid, index)
        if Path(name.removesuffix(" (deleted)")).name in ("vectors.faiss", "rows.i64")
        and Path(name).parent.name.isdigit()
    }


def _generations(index: Path) -> list[str]:
    return sorted(path.name for path in index.iterdir() if path.name.isdigit())


def _pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


def _text(n: int) -> str:
    return f"Paragraph {n} about topic {n * 7 % 13}, as written in book {n % 101} on page {n // 101}."
