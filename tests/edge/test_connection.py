"""One connection: it ends when its client does, and says goodbye in the client's protocol (see test_protocols)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edge.conftest import Serve, Site

pytestmark = pytest.mark.anyio


async def test_connection_that_the_client_closes_is_forgotten_at_once(serve: Serve, site: Site) -> None:
    async with serve(site, keep_alive_seconds=60.0) as running:
        reader, writer = await running.open()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"ok")
        assert running.server.connections == 1
        writer.close()
        async with asyncio.timeout(10):
            while running.server.connections:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.005)


async def test_silent_connection_is_closed_after_the_keep_alive_time(serve: Serve, site: Site) -> None:
    async with serve(site, keep_alive_seconds=0.2) as running:
        assert await running.exchange(b"") == b""


async def test_slow_head_is_closed_after_the_keep_alive_time(serve: Serve, site: Site) -> None:
    async with serve(site, keep_alive_seconds=0.2) as running:
        assert await running.exchange(b"GET / HTTP/1.1\r\nHost:") == b""
        assert site.paths == []
