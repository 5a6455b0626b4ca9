"""How long a request waits for its session."""

from __future__ import annotations

import contextlib
import time

import pytest

from ragagent.engine.conversations.talk import Waiting
from ragagent.errors import Conflict

pytestmark = pytest.mark.anyio


async def patience(waiting: Waiting) -> int:
    """Return how often one may ask within the time."""
    asked = 0
    with contextlib.suppress(Conflict):
        while True:
            await waiting.once_more()
            asked += 1
    return asked


async def test_waiting_ends_at_its_time_and_asks_rarer_meanwhile() -> None:
    started = time.monotonic()
    assert 5 <= await patience(Waiting(0.3)) <= 25
    assert time.monotonic() - started >= 0.3
