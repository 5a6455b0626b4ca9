"""What the kernel says: which machine this is, and what a process has used."""

from __future__ import annotations

import contextlib
import os
import platform
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ragagent import __version__

PACKAGES = ("faiss-cpu", "tantivy", "numpy", "wordllama", "starlette", "httptools")
QUIET_SECONDS = 2.0  # A process that uses less than a tenth of a core for so long has nothing left to do.
QUIET_SHARE = 0.1

_TICKS = os.sysconf("SC_CLK_TCK")


def described() -> str:
    model = next((line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{os.cpu_count()} cores ({model.partition(':')[2].strip() or platform.machine()}), {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, load {os.getloadavg()[0]:.1f}\n"
        f"Python {platform.python_version()}, ragagent {__version__}, {packages}, SQLite {sqlite3.sqlite_version}"
    )


def cpu_seconds(pid: int) -> float:
    """Return what all threads of the process have used, user and system."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass(frozen=True)
class Memory:
    """Proportional set size: private memory, and of shared memory the process's part. In bytes."""

    total: int
    anonymous: int
    index: int  # files under index/
    database: int  # the database, as far as SQLite maps it


def memory(pid: int, data_dir: Path) -> Memory:
    found = {"": 0}
    name = ""
    for line in _read(f"/proc/{pid}/smaps").splitlines():
        key, _, rest = line.partition(" ")
        if key == "Pss:":
            found[name] = found.get(name, 0) + int(rest.split()[0]) * 1024
        elif not key.endswith(":"):  # a mapping's head: addresses, rights, offset, device, inode, name
            name = "".join(line.split(maxsplit=5)[5:])
    return Memory(
        total=sum(found.values()),
        anonymous=_named(f"/proc/{pid}/smaps_rollup", "Pss_Anon") * 1024,
        index=sum(size for name, size in found.items() if name.startswith(f"{data_dir}/index/")),
        database=sum(size for name, size in found.items() if name.startswith(f"{data_dir}/ragagent.db")),
    )


def written_bytes(pid: int) -> int:
    """Return what the process has sent to the disk; what never left the page cache does not count."""
    return _named(f"/proc/{pid}/io", "write_bytes")


def passed_bytes(pid: int) -> int:
    """Return what the process has given to write calls."""
    return _named(f"/proc/{pid}/io", "wchar")


def bytes_under(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # merged away meanwhile
            continue
    return total


def wait_until_quiet(pid: int, timeout: float, *, patient: bool = True) -> None:
    """Wait until the process has nothing left to do; exit when it still has after so long, unless not `patient`.

    Asked of the kernel, not of the process: so it holds whatever that calls its work.
    """
    begun = quiet_since = time.monotonic()
    used = cpu_seconds(pid)
    while time.monotonic() - begun < timeout:
        time.sleep(QUIET_SECONDS / 10)
        now, before = cpu_seconds(pid), used
        used = now
        if _wants_to_run(pid) or now - before > QUIET_SHARE * QUIET_SECONDS / 10:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since >= QUIET_SECONDS:
            return
    if patient:
        raise SystemExit(f"process {pid} has not come to rest within {timeout:.0f} s")


def _wants_to_run(pid: int) -> bool:
    """Return whether a thread runs, or waits for a core or the disk: on a busy machine work may use next to no time."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if _read(f"{task}/stat").rpartition(")")[2].split()[0] in ("R", "D"):
                return True
    return False


def percentile(seconds: Sequence[float] | npt.NDArray[np.float64], share: float) -> float:
    """Return a percentile in milliseconds."""
    return float(np.percentile(np.asarray(seconds), share * 100)) * 1000


def _named(path: str, name: str) -> int:
    return next(int(line.split()[1]) for line in _read(path).splitlines() if line.startswith(f"{name}:"))


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")
