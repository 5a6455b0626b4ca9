"""The lifespan: startup succeeds or says why; shutdown ends within its time."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from ragagent.edge.guard import Receive, Scope, Send
from ragagent.edge.lifespan import Lifespan
from ragagent.errors import Unavailable

pytestmark = pytest.mark.anyio


async def well(scope: Scope, receive: Receive, send: Send) -> None:
    scope["state"]["index"] = "open"
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    scope["state"]["index"] = "closed"
    await send({"type": "lifespan.shutdown.complete"})


async def test_state_is_what_the_application_sets() -> None:
    lifespan = Lifespan(well)
    await lifespan.startup()
    assert lifespan.state == {"index": "open"}
    await lifespan.shutdown(5)
    assert lifespan.state == {"index": "closed"}


async def test_startup_that_raises_says_why() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the index is gone")

    with pytest.raises(Unavailable, match="RuntimeError: the index is gone"):
        await Lifespan(broken).startup()


async def test_startup_that_is_refused_says_why() -> None:
    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "Traceback:\n  no disk"})

    with pytest.raises(Unavailable, match="no disk"):
        await Lifespan(refusing).startup()


async def test_startup_that_ends_without_a_word_is_a_failure() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        return

    with pytest.raises(Unavailable, match="it left without a word"):
        await Lifespan(silent).startup()


async def test_shutdown_that_hangs_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    async def hanging(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.complete"})
        await asyncio.Event().wait()

    lifespan = Lifespan(hanging)
    await lifespan.startup()
    begun = time.monotonic()
    await lifespan.shutdown(0.1)
    assert time.monotonic() - begun < 5
    assert "did not shut down within 0.1 s" in caplog.text


async def test_shutdown_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise RuntimeError("the disk went away")

    lifespan = Lifespan(failing)
    await lifespan.startup()
    with caplog.at_level(logging.ERROR):
        await lifespan.shutdown(5)
    assert "the disk went away" in caplog.text


async def test_shutdown_without_startup_is_nothing() -> None:
    await Lifespan(well).shutdown(5)
