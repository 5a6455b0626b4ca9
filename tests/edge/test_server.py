"""One server, met through raw connections: what a client sees while it serves, and while it ends."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from ragagent.config import Server as Settings
from ragagent.edge.server import ACCEPTS_PER_TURN, Server

if TYPE_CHECKING:
    from edge.conftest import Serve, Site

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what it waits for sets no event
            await asyncio.sleep(0.005)


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one response with a content-length; return its head and body."""
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        return head.lower(), await reader.readexactly(int(length))


async def timed(awaitable: Awaitable[None]) -> float:
    begun = time.monotonic()
    await awaitable
    return time.monotonic() - begun


async def test_answers_again_and_again_on_one_connection(serve: Serve, site: Site) -> None:
    async with serve(site) as running:
        reader, writer = await running.open()
        for _ in range(3):
            writer.write(GET)
            head, body = await answer(reader)
            assert body == b"ok"
            assert b"connection: close" not in head
            assert b"\r\nserver:" not in head
        assert running.server.requests == 3
        assert running.server.connections == 1
        assert running.server.in_flight == 0


async def test_more_than_a_thousand_requests_keep_their_connection(serve: Serve, site: Site) -> None:
    async with serve(site) as running:
        reader, writer = await running.open()
        for _ in range(1_100):
            writer.write(GET)
            assert (await answer(reader))[1] == b"ok"
        assert len(site.paths) == 1_100


async def test_counts_what_the_application_works_on(serve: Serve, site: Site) -> None:
    async with serve(site) as running:
        _, writer = await running.open()
        writer.write(GET.replace(b"/ ", b"/wait ", 1))
        await until(lambda: running.server.in_flight == 1)
        site.release.set()
        await until(lambda: running.server.in_flight == 0)


async def test_without_keep_alive_every_answer_closes(serve: Serve, site: Site) -> None:
    async with serve(site, keep_alive_seconds=0.0) as running:
        response = await running.exchange(GET)
        assert b"connection: close" in response.lower()
        assert response.endswith(b"ok")


async def test_shared_queue_keeps_its_length_and_the_socket_its_delay_off(site: Site) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = Server(site, [listener.dup()], Settings(backlog=512, keep_alive_seconds=0.1))
        await server.startup()
        await server.accept()
        # In state LISTEN, tcpi_sacked is the length of the accept queue (`ss -ltn` shows it as Send-Q).
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        assert int.from_bytes(info[28:32], "little") == 512 != ACCEPTS_PER_TURN
        await server.drain()
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1  # Others go on with it.
        assert site.ended == 1


async def test_drain_of_a_server_that_never_accepted_ends_the_application(site: Site) -> None:
    server = Server(site, [], Settings(graceful_seconds=5))
    await server.startup()
    assert await timed(server.drain()) < 2
    assert site.ended == 1


async def test_drain_answers_on_idle_connections_and_asks_them_to_close(serve: Serve, site: Site) -> None:
    async with serve(site, keep_alive_seconds=2.0) as running:
        reader, writer = await running.open()
        writer.write(GET)
        await answer(reader)
        draining = asyncio.create_task(running.server.drain())
        await asyncio.sleep(0.2)
        writer.write(GET)
        head, body = await answer(reader)
        assert body == b"ok"
        assert b"connection: close" in head
        assert await reader.read() == b""
        await draining


async def test_drain_refuses_new_connections_while_others_may_take_them(serve: Serve, site: Site) -> None:
    async with serve(site, keep_alive_seconds=2.0) as running:
        reader, writer = await running.open()
        writer.write(GET)
        await answer(reader)
        draining = asyncio.create_task(running.server.drain())
        await asyncio.sleep(0.01)  # Long before the duplicate is closed: not to accept is what is asked here.
        late, late_writer = await running.open()  # Queued in the kernel: its listener lives, and nobody here accepts.
        late_writer.write(GET)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await late.read(1)
        writer.close()
        await draining


async def test_drain_completes_a_stream(serve: Serve, site: Site) -> None:
    async with serve(site) as running:
        reader, writer = await running.open()
        writer.write(GET.replace(b"/ ", b"/stream ", 1))
        await reader.readuntil(b"0\n")
        draining = asyncio.create_task(running.server.drain())
        assert (await reader.read()).endswith(b"4\n\r\n0\r\n\r\n")
        await draining
        assert site.ended == 1


async def test_drain_ends_a_request_that_outlives_the_budget(serve: Serve, site: Site) -> None:
    async with serve(site, graceful_seconds=1.0) as running:
        reader, writer = await running.open()
        writer.write(GET.replace(b"/ ", b"/wait ", 1))
        await until(lambda: running.server.in_flight == 1)
        assert 0.9 < await timed(running.server.drain()) < 3
        with suppress(ConnectionError):  # Cut off, by a reset or by an end of file.
            assert await reader.read() == b""
        assert site.ended == 1


async def test_drain_ends_a_client_that_never_reads(serve: Serve, site: Site) -> None:
    async with serve(site, graceful_seconds=1.0) as running:
        with socket.create_connection(("127.0.0.1", running.port)) as client:
            client.sendall(GET.replace(b"/ ", b"/flood ", 1))
            await until(lambda: running.server.in_flight == 1)
            await asyncio.sleep(0.2)  # Until every buffer on the way is full.
            assert await timed(running.server.drain()) < 3
        assert site.ended == 1


async def test_connection_opened_just_before_the_drain_is_answered(serve: Serve, site: Site) -> None:
    for _ in range(10):
        async with serve(site, keep_alive_seconds=0.2) as running:
            reader, writer = await running.open()
            writer.write(GET)
            draining = asyncio.create_task(running.server.drain())
            assert (await answer(reader))[1] == b"ok"
            await draining
