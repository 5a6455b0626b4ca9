"""What a test runs as a process of its own: `python child.py ROOT COMMAND ...`. Talks in lines."""

from __future__ import annotations

import itertools
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ragagent.index import directory, files
from ragagent.index.lexical import LexicalWriter
from ragagent.index.searchers import Searchers
from ragagent.index.writer import Writer

sys.path.insert(0, str(Path(__file__).parents[1]))
from index.conftest import DIMENSION, MODEL, STORE, row, rows, vector


def say(*words: object) -> None:
    print(*words, flush=True)


def anonymous_kib() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def hold(root: Path) -> None:
    """Pin the store, touch every row, say how much private memory that took, and hold it until a line comes in."""
    searchers = Searchers(root, ef_search=64)
    with searchers.pin("vs_warm") as searcher:  # what libraries take once, whatever the size
        searcher.search(vector(0), ["all"], candidates=5)
    before = anonymous_kib()
    with searchers.pin(STORE) as searcher:
        searcher.search(vector(0, searcher.dimension), ["all"], candidates=5)
        say(searcher.generation, anonymous_kib() - before)
        sys.stdin.readline()
    searchers.close()
    say("released")
    sys.stdin.readline()


def read(root: Path, acknowledged: Path, seconds: str) -> None:
    """For a while, look up random acknowledged rows in both legs; say how many were looked up and how many missed."""
    searchers = Searchers(root, ef_search=64)
    deadline = time.monotonic() + float(seconds)
    looked = missed = 0
    generations = set()
    while time.monotonic() < deadline:
        last = int(Path(acknowledged).read_text() or 0)
        wanted = random.randint(1, last)
        with searchers.pin(STORE) as searcher:
            legs = searcher.search(vector(wanted), [f"w{wanted}"], candidates=3)
            generations.add(searcher.generation)
            missed += searcher.seq < last or legs.dense[0][0] != wanted or [c for c, _ in legs.lexical] != [wanted]
        looked += 1
    say(looked, missed, len(generations))


def publish(root: Path) -> None:
    """Publish one row after the other from where the store stands, saying each seq once it is published."""
    writer = open_writer(root)
    for seq in itertools.count(writer.seq + 1):
        writer.publish(seq, [row(seq)], dead=[seq - 5], forget=[seq - 5])
        say(seq)
        if seq % 7 == 0:
            writer.compact()
            writer.prune()


def crash(root: Path, work: str) -> None:
    """Do `work` on copies of the store, each time dying one effect later, until it survives. Say how many copies."""
    for number in itertools.count():
        copy = root.with_name(f"crash-{number}")
        shutil.copytree(root, copy)
        pid = os.fork()
        if pid == 0:
            WORK[work](copy, number)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code != DEAD:
            say(number, code)
            return


DEAD = 9


def die_before(effect: int) -> None:
    """Have the process die before the given effect on the disk; a write dies in the middle of its bytes."""
    left = itertools.count(effect, -1)

    def dying(act: Callable[..., Any], *, torn: bool = False) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            if next(left) > 0:
                return act(*arguments)
            if torn:
                path, offset, data = arguments
                with open(path, "r+b" if Path(path).exists() else "wb") as file:
                    file.seek(offset)
                    file.write(data.tobytes()[: data.nbytes // 2])
            os._exit(DEAD)

        return wrapped

    for name in ("write_file", "sync", "rename", "truncate", "remove"):
        setattr(files, name, dying(getattr(files, name)))
    files.write_at = dying(files.write_at, torn=True)
    LexicalWriter.replace = dying(LexicalWriter.replace)  # type: ignore[method-assign]


def publish_once(root: Path, effect: int) -> None:
    writer = open_writer(root)
    die_before(effect)
    writer.publish(2, [*rows(range(8, 12)), row(0, seed=100)], dead=[1, 2], forget=[1, 2])


def compact_once(root: Path, effect: int, **options: Any) -> None:
    writer = open_writer(root, **options)
    die_before(effect)
    with writer.begin_compaction() as build:
        build.run()
        writer.finish_compaction(build)
    writer.prune()


def merge_once(root: Path, effect: int) -> None:
    compact_once(root, effect, hnsw_rows=1)


def retain_once(root: Path, effect: int) -> None:
    compact_once(root, effect, retain_bytes=10**9)


def back_once(root: Path, effect: int) -> None:
    writer = open_writer(root, retain_bytes=10**9)
    die_before(effect)
    writer.roll_back(1, np.array([0, *range(3, 12)]))
    writer.prune()


def create_once(root: Path, effect: int) -> None:
    die_before(effect)
    open_writer(root, "vs_new").close()


def recreate_once(root: Path, effect: int) -> None:
    die_before(effect)
    directory.remove(root, STORE)
    open_writer(root, STORE).close()


WORK: dict[str, Callable[[Path, int], None]] = {
    "publish": publish_once,
    "compact": compact_once,
    "merge": merge_once,
    "retain": retain_once,
    "back": back_once,
    "create": create_once,
    "recreate": recreate_once,
}


def full(root: Path) -> None:
    """Publish onto a disk that takes no more (the file size limit stands for it), then with room again."""

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    writer = open_writer(root)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    try:
        writer.publish(2, rows(range(8, 50)))
    except Exception as exc:
        say(type(exc).__name__)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    writer = open_writer(root)
    writer.publish(2, rows(range(8, 50)))
    say(writer.seq)


def open_writer(root: Path, store_id: str = STORE, **options: Any) -> Writer:
    return Writer.open(root, store_id, MODEL, DIMENSION, **{"hnsw_rows": 10_000, "max_delta_rows": 100, **options})


COMMANDS: dict[str, Callable[..., None]] = {
    "hold": hold,
    "read": read,
    "publish": publish,
    "crash": crash,
    "full": full,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[2]](Path(sys.argv[1]), *sys.argv[3:])
