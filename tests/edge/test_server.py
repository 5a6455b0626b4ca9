"""One server, met through raw connections: what a client sees while it serves, and while it ends."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from ragagent.config import Server as Settings
from ragagent.edge.guard import Receive, Scope, Send
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


async def test_shared_queue_keeps_its_length_and_its_life(site: Site, http1: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = Server(site, [listener.dup()], settings(http1, backlog=512, keep_alive_seconds=0.1))
        await server.startup()
        await server.accept()
        # In state LISTEN, tcpi_sacked is the length of the accept queue (`ss -ltn` shows it as Send-Q).
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        assert int.from_bytes(info[28:32], "little") == 512 != ACCEPTS_PER_TURN
        await server.drain()
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1  # Others go on with it.
        assert site.ended == 1


@pytest.mark.parametrize("proto", [socket.IPPROTO_TCP, 0], ids=["TCP", "unnamed"])
async def test_accepted_connections_send_without_delay(site: Site, http1: str, proto: int) -> None:
    """asyncio sees to it only where the listener's `proto` is TCP; else each answer in two packets takes 40 ms."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, proto) as listener:
        listener.bind(("127.0.0.1", 0))
        server = Server(site, [listener.dup()], settings(http1, keep_alive_seconds=0.1))
        await server.startup()
        await server.accept()
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(GET)
        await reader.readuntil(b"ok")
        with accepted(writer.get_extra_info("sockname")) as connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()
        await server.drain()


class Watched(socket.socket):
    """A socket that tells the modes that Python gave it: they are the open file's, and so those of all who share it."""

    modes: list[float | None]

    def settimeout(self, value: float | None, /) -> None:
        self.modes.append(value)
        super().settimeout(value)


async def test_shared_listener_never_blocks_those_who_accept_on_it_already(site: Site, http1: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        bound.setblocking(False)
        Watched.modes = []
        inherited = Watched(fileno=os.dup(bound.fileno()))
        assert inherited.gettimeout() is None, "an object made of a number does not know its mode"
        server = Server(site, [inherited], settings(http1))
        await server.startup()
        await server.accept()
        try:
            assert Watched.modes
            assert None not in Watched.modes
            assert not os.get_blocking(bound.fileno())
        finally:
            await server.drain()


@contextmanager
def accepted(client: tuple[str, int]) -> Iterator[socket.socket]:
    """Find the server's end of a connection among this process's own files."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as found:
            if found.getpeername() == client:
                yield found
                return
    raise AssertionError("no such connection")


def settings(http1: str, **keys: Any) -> Settings:
    return Settings(http1="llhttp" if http1 == "llhttp" else "hypercorn", **keys)


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


# --- A connection that is given ---------------------------------------------------------------------------------------

PROBE = b"GET /healthz HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n"


async def probe(server: Server, raw: bytes = PROBE) -> bytes:
    """Give one end of a socket pair to the server, and return all that it says on it."""
    ours, theirs = socket.socketpair()
    server.attach(theirs)
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    try:
        writer.write(raw)
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def test_attached_connection_is_answered(serve: Serve, site: Site) -> None:
    async with serve(site) as running:
        response = await probe(running.server)
        assert response.startswith(b"HTTP/1.1 200")
        assert response.endswith(b"ok")
        assert site.paths == ["/healthz"]
        assert running.server.connections == 0


async def test_attached_connection_has_no_client(serve: Serve, site: Site) -> None:
    clients: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            clients.append((scope["client"], scope["server"]))
        await site(scope, receive, send)

    async with serve(app) as running:
        await probe(running.server)
        assert clients == [(None, None)]


async def test_attached_connection_is_guarded_as_well(serve: Serve, site: Site) -> None:
    async with serve(site) as running:
        raw = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        assert (await probe(running.server, raw)).startswith(b"HTTP/1.1 400")


async def test_attached_connection_is_answered_before_the_server_accepts(site: Site, http1: str) -> None:
    server = Server(site, [], settings(http1, graceful_seconds=2.0))
    await server.startup()
    assert (await probe(server)).endswith(b"ok")
    await server.drain()


async def test_attached_connections_do_not_hold_a_drain(site: Site, http1: str) -> None:
    server = Server(site, [], settings(http1, graceful_seconds=60.0, keep_alive_seconds=60.0))
    await server.startup()
    silent, busy = socket.socketpair(), socket.socketpair()
    busy[0].sendall(GET.replace(b"/ ", b"/wait ", 1))
    for _, theirs in (silent, busy):
        server.attach(theirs)
    await until(lambda: server.in_flight == 1)
    assert await timed(server.drain()) < 10
    assert (server.in_flight, site.ended) == (0, 1)
    for ours, _ in (silent, busy):
        with suppress(ConnectionError):
            assert ours.recv(100) == b""
        ours.close()


async def test_attached_connection_is_answered_while_the_server_drains(serve: Serve, site: Site) -> None:
    async with serve(site, keep_alive_seconds=5.0) as running:
        _, writer = await running.open()
        writer.write(GET.replace(b"/ ", b"/wait ", 1))
        await until(lambda: running.server.in_flight == 1)
        draining = asyncio.create_task(running.server.drain())
        await asyncio.sleep(0.1)
        assert (await probe(running.server)).endswith(b"ok")
        site.release.set()
        writer.close()
        await draining


async def test_connection_attached_after_the_end_is_closed(site: Site, http1: str) -> None:
    server = Server(site, [], settings(http1))
    await server.startup()
    await server.drain()
    assert await probe(server, b"") == b""
