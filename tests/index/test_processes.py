"""What processes share, hold and see of each other."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np

from index.conftest import MODEL, STORE, Bed, row, rows
from ragagent.index.rows import Row
from ragagent.index.writer import Writer


def line(child: subprocess.Popen[str]) -> list[int]:
    assert child.stdout is not None
    return [int(word) for word in child.stdout.readline().split()]


def release(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.stdout.readline() == "released\n"


def mapping(pid: int, path: Path) -> dict[str, int]:
    """Return the smaps figures (KiB) of what the process maps of the file."""
    figures: dict[str, int] = {}
    is_ours = False
    for text in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", text):
            is_ours = text.endswith(f" {path}")
        elif is_ours and text.endswith(" kB"):
            name, value = text.split(":")
            figures[name] = figures.get(name, 0) + int(value.split()[0])
    return figures


def test_two_readers_share_one_generation_s_pages(bed: Bed) -> None:
    count, dimension = 16_000, 256
    vectors = np.random.default_rng(0).standard_normal((count, dimension), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    bed.writer("vs_warm").publish(1, rows([1]))
    writer = Writer.open(bed.root, STORE, MODEL, dimension, hnsw_rows=100_000, max_delta_rows=1)
    writer.publish(1, [Row(i, i // 4, vectors[i], "all") for i in range(count)])
    writer.compact()
    writer.close()
    size = count * dimension * 4 // 1024
    children = [bed.child("hold"), bed.child("hold")]
    private = [line(child)[1] for child in children]
    for child, grown in zip(children, private, strict=True):
        figures = mapping(child.pid, bed.store / "000002" / "vectors.faiss")
        assert figures["Rss"] >= size
        assert figures["Private_Dirty"] == figures["Anonymous"] == 0
        assert figures["Shared_Clean"] >= size
        assert grown < size // 4, f"{grown} KiB of private memory for an index of {size}"


def test_a_stopped_reader_keeps_its_generation_and_stops_nobody(bed: Bed) -> None:
    bed.writer("vs_warm").publish(1, rows([1]))
    writer = bed.writer()
    writer.publish(1, rows(range(9)))
    child = bed.child("hold")
    assert line(child)[0] == 1
    os.kill(child.pid, signal.SIGSTOP)
    try:
        writer.publish(2, rows([20]))
        writer.compact()
        assert writer.prune() == []
        assert (bed.store / "000001" / "vectors.faiss").exists()
    finally:
        os.kill(child.pid, signal.SIGCONT)
    release(child)
    assert writer.prune() == [1]


def test_a_killed_reader_holds_nothing(bed: Bed) -> None:
    bed.writer("vs_warm").publish(1, rows([1]))
    writer = bed.writer()
    child = bed.child("hold")
    assert line(child)[0] == 1
    writer.compact()
    assert writer.prune() == []
    child.kill()
    child.wait(timeout=10)
    assert writer.prune() == [1]


def test_readers_in_other_processes_find_every_acknowledged_row(bed: Bed) -> None:
    writer = bed.writer()
    acknowledged = bed.root / "acknowledged"

    def publish(seq: int) -> None:
        writer.publish(seq, [row(seq)])
        acknowledged.with_suffix(".tmp").write_text(str(seq))
        os.replace(acknowledged.with_suffix(".tmp"), acknowledged)

    publish(1)
    children = [bed.child("read", acknowledged, 3), bed.child("read", acknowledged, 3)]
    seq, deadline = 1, time.monotonic() + 30
    while any(child.poll() is None for child in children):
        assert time.monotonic() < deadline
        seq += 1
        publish(seq)
        if seq % 10 == 0:
            writer.compact()
            writer.prune()
    for child in children:
        looked, missed, generations = line(child)
        assert child.returncode == 0
        assert missed == 0
        assert looked > 100
        assert generations > 2
    assert writer.manifest.rows == seq
