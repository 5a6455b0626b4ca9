"""What a reload costs clients that are a network away: nothing. By the benchmark itself, so that it is held as well."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "reload.py"


@pytest.mark.parametrize(
    ("reloads", "between", "least"),
    [(3, 0.5, 500), pytest.param(10, 2.0, 8000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])],
)
def test_reloads_lose_no_request_over_http1_and_http2(reloads: int, between: float, least: int) -> None:
    result = _measured("--rtt", "30", "--reloads", str(reloads), "--seconds-between", str(between))
    assert result["failed"] == 0, result["reasons"]
    assert result["requests"] >= least
    assert result["http2_requests"] > 0
    assert None not in result["reload_seconds"]


@pytest.mark.soak
def test_a_release_that_starts_slowly_stalls_nobody() -> None:
    result = _measured("--rtt", "30", "--reloads", "1", "--slow-start", "8")
    assert result["failed"] == 0, result["reasons"]
    assert result["worst_stall_ms"] < 2000  # It is near the round trip on a machine that does nothing else.


def _measured(*options: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCH), "--only", "ours", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    found: dict[str, Any] = result
    return found
