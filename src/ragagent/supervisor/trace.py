"""The record of one reload: a plain tree of spans, handed to a short-lived child that exports it.

The supervisor has no thread and no OpenTelemetry, so a collector that hangs can slow nothing but that child.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from ragagent import names
from ragagent.errors import EXIT_CONFIG
from ragagent.supervisor.process import spawn
from ragagent.supervisor.release import Failure, Release

# Each phase of a reload, from one mark of the release to the next.
_PHASES = (
    (names.RELOAD_SPAWN, "requested", "loaded"),
    (names.RELOAD_READY, "loaded", "ready"),
    (names.RELOAD_SWITCH, "ready", "serving"),
    (names.RELOAD_DRAIN, "serving", "finished"),
)
_PIPE_BYTES = 65_536

logger = logging.getLogger("ragagent.supervisor")


def record(release: Release, failure: Failure | None) -> dict[str, Any]:
    """Return the trace of a reload that has ended, times in Unix ns; a phase that never ended ends with the reload.

    It says what went wrong by outcome only: the reason may quote a config value, and belongs in the log.
    """
    unix = _unix_clock()
    marks, outcome = release.marks, _outcome(failure)
    end = marks["finished"]
    phases = [
        _span(name, unix(marks[begin]), unix(marks.get(until, end)), None if until in marks else outcome)
        for name, begin, until in _PHASES
        if begin in marks
    ]
    whole = _span(names.RELOAD, unix(marks["requested"]), unix(end), outcome if failure else None)
    whole["attributes"][names.RELOAD_OUTCOME] = outcome
    return {**whole, "spans": phases}


def report(trace: Mapping[str, Any], endpoint: str, service_name: str) -> int | None:
    """Start the child that exports `trace` and return its pid; it is reaped like any other. None: nobody listens."""
    if not endpoint:
        return None
    order = {"endpoint": endpoint, "service_name": service_name, "trace": trace, "pid": os.getpid()}
    data = json.dumps(order).encode()
    if len(data) > _PIPE_BYTES:  # It must fit the pipe, because nobody here waits for a reader.
        logger.warning("The trace of a reload is too large to be reported (%d bytes).", len(data))
        return None
    reading, writing = os.pipe()
    try:
        os.write(writing, data)
        return spawn("ragagent.supervisor.report", [], stdin=reading)
    except OSError as exc:
        logger.warning("The trace of a reload cannot be reported: %s.", exc.strerror)
        return None
    finally:
        os.close(reading)
        os.close(writing)


def _outcome(failure: Failure | None) -> str:
    if failure is None:
        return "ok"
    return "invalid_config" if failure.code == EXIT_CONFIG else "not_ready"


def _span(name: str, start: int, end: int, error: str | None) -> dict[str, Any]:
    attributes = {names.ERROR_TYPE: error} if error else {}
    return {"name": name, "start": start, "end": end, "is_error": error is not None, "attributes": attributes}


def _unix_clock() -> Callable[[float], int]:
    """Return a function from this process's monotonic seconds to Unix nanoseconds."""
    offset = time.time_ns() - time.monotonic_ns()
    return lambda moment: int(moment * 1e9) + offset
