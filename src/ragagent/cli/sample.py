"""One look at a server, and what two of them tell together: how busy each process was between."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragagent.cli import fleet

Reply = Mapping[str, Any]

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    reply: Reply
    cpu_seconds: Mapping[int, float]  # by pid; what cannot be read is absent
    at: float  # Unix time, for ages
    clock: float  # monotonic, for rates

    @classmethod
    def of(cls, reply: Reply) -> Sample:
        """Add to a status what the machine knows of its processes now."""
        pids = [entry["pid"] for entry in (reply["supervisor"], *fleet.processes(reply)) if entry["pid"] is not None]
        used = {pid: seconds for pid in pids if (seconds := cpu_seconds(pid)) is not None}
        return cls(reply, used, time.time(), time.monotonic())


@dataclass(frozen=True)
class Rates:
    """Per second, between two samples. None: nothing can be said, as of a process that is new."""

    cpu_percent: Mapping[int, float]  # of one core, by pid
    requests: Mapping[int, float]  # by pid

    @classmethod
    def between(cls, previous: Sample | None, sample: Sample) -> Rates:
        if previous is None or sample.clock <= previous.clock:
            return cls({}, {})
        seconds = sample.clock - previous.clock
        cpu = dict(_rates(previous.cpu_seconds, sample.cpu_seconds, seconds))
        requests = dict(_rates(_requests(previous.reply), _requests(sample.reply), seconds))
        return cls({pid: 100.0 * rate for pid, rate in cpu.items()}, requests)

    @property
    def total(self) -> float | None:
        return sum(self.requests.values()) if self.requests else None


def cpu_seconds(pid: int, proc: Path = _PROC) -> float | None:
    """Return the time that the process has computed; None where the system does not say."""
    try:
        stat = (proc / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field, the command, may hold blanks and parentheses: what follows its last one is regular.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def _requests(reply: Reply) -> Mapping[int, int]:
    workers = (entry for entry in reply["workers"] if entry["pid"] is not None)
    return {entry["pid"]: entry["stats"]["requests"] for entry in workers if "requests" in entry["stats"]}


def _rates(before: Mapping[int, float], after: Mapping[int, float], seconds: float) -> Iterator[tuple[int, float]]:
    # A count that has fallen belongs to another process with the same pid.
    yield from ((pid, (after[pid] - before[pid]) / seconds) for pid in after if 0 <= before.get(pid, -1) <= after[pid])
