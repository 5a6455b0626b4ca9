from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import logging
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ragagent.errors import ConfigError
from ragagent.remote.breaker import FAILURES
from ragagent.remote.connection import NoReply, Remote
from redis_server import RedisServer, redis_server

pytestmark = [pytest.mark.anyio, pytest.mark.redis]

KEY = "rag:1:-:embedding:00"
SECRET = "the-words-of-a-user"


@pytest.fixture
async def remote(redis: RedisServer) -> AsyncIterator[Remote]:
    async with Remote(redis.url, connections=20, timeout_seconds=0.3) as remote:  # a loaded machine is no hung server
        assert remote.state == "up"
        yield remote


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110  No event tells of it: it happens in another process.
            await asyncio.sleep(0.01)


async def until_up(remote: Remote) -> None:
    """Wait as its users would: by asking for a key."""

    async def is_up() -> bool:
        await remote.get(KEY)
        return remote.state == "up"

    await eventually(is_up)


async def until_open(remote: Remote) -> list[bytes | NoReply | None]:
    replies = [await remote.get(KEY) for _ in range(FAILURES)]
    assert remote.state == "degraded"
    return replies


async def test_what_is_set_is_found_until_it_expires(remote: Remote) -> None:
    assert await remote.get(KEY) is None
    assert await remote.set(KEY, b"\x00\xff", ttl=0.05) is None
    assert await remote.get(KEY) == b"\x00\xff"

    async def is_gone() -> bool:
        return await remote.get(KEY) is None

    await eventually(is_gone)


async def test_unix_sockets_and_text_replies_in_the_url_change_nothing(redis: RedisServer) -> None:
    async with Remote(f"{redis.unix_url}&decode_responses=1") as remote:
        assert await remote.set(KEY, b"\x00\xff", ttl=5) is None
        assert await remote.get(KEY) == b"\x00\xff"


async def test_tls_is_spoken_and_its_certificate_checked(redis: RedisServer, tmp_path: Path) -> None:
    async with tls_in_front_of(redis.port, tmp_path) as (port, authority):
        async with Remote(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority}") as remote:
            assert await remote.set(KEY, b"value", ttl=5) is None
            assert await remote.get(KEY) == b"value"
        async with Remote(f"rediss://127.0.0.1:{port}/0") as remote:
            assert remote.state == "degraded"


async def test_without_a_url_it_is_off() -> None:
    async with Remote("") as remote:
        assert remote.state == "off"
        assert await remote.get(KEY) is NoReply.OFF
        assert await remote.set(KEY, b"value", ttl=5) is NoReply.OFF
        assert await remote.purge("rag:1:") == (0, False)


def test_a_wrong_url_is_an_error_of_configuration_that_hides_the_password() -> None:
    with pytest.raises(ConfigError, match=r"redis\.url") as caught:
        Remote("http://:hunter2@127.0.0.1/")
    assert "hunter2" not in str(caught.value)


async def test_a_hung_server_costs_three_callers_one_timeout_each_and_heals(redis: RedisServer, remote: Remote) -> None:
    redis.pause()
    assert await until_open(remote) == [NoReply.FAILED] * FAILURES
    assert [await remote.get(KEY) for _ in range(100)] == [NoReply.OPEN] * 100
    redis.resume()
    await until_up(remote)
    assert remote.stats().no_replies[NoReply.FAILED] == FAILURES


async def test_a_killed_server_is_missed_and_used_again(redis: RedisServer, remote: Remote) -> None:
    redis.kill()
    assert await until_open(remote) == [NoReply.FAILED] * FAILURES
    redis.start()
    await until_up(remote)
    assert await remote.set(KEY, b"value", ttl=5) is None


async def test_a_restart_between_two_calls_costs_at_most_the_one_that_finds_out(
    redis: RedisServer, remote: Remote
) -> None:
    redis.kill()
    redis.start()
    replies = [await remote.get(KEY) for _ in range(3)]
    assert replies[1:] == [None, None]
    assert remote.state == "up"


async def test_absent_at_start_it_is_degraded_and_recovers_by_itself() -> None:
    with redis_server(start=False) as server:
        async with Remote(server.url) as remote:
            assert remote.state == "degraded"
            assert await remote.get(KEY) is NoReply.OPEN
            server.start()
            await until_up(remote)


async def test_a_wrong_password_degrades_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with redis_server("--requirepass", "right") as server:
        for scheme in (f"redis://:hunter2@127.0.0.1:{server.port}", f"{server.unix_url}&password=hunter2"):
            caplog.clear()
            async with Remote(scheme) as remote:
                assert remote.state == "degraded"
                assert [await remote.get(KEY) for _ in range(5)] == [NoReply.OPEN] * 5
            assert len(caplog.records) == 1
            assert "hunter2" not in caplog.text
        async with Remote(f"redis://:right@127.0.0.1:{server.port}") as remote:
            assert remote.state == "up"


async def test_a_full_server_refuses_writes_and_still_answers_reads(
    redis: RedisServer, remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    assert await remote.set(KEY, b"value", ttl=60) is None
    with contextlib.closing(redis.admin()) as admin:
        admin.config_set("maxmemory", 1)
        assert [await remote.set(KEY, SECRET.encode(), ttl=60) for _ in range(9)] == [NoReply.REFUSED] * 9
        assert remote.state == "degraded"
        assert await remote.get(KEY) == b"value"
        assert len(caplog.records) == 1
        admin.config_set("maxmemory", 0)
    assert await remote.set(KEY, b"newer", ttl=60) is None
    await until_up(remote)


async def test_a_stranger_on_the_port_is_a_miss() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(1024):
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        async with Remote(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as remote:
            assert remote.state == "degraded"
            assert await remote.get(KEY) is NoReply.OPEN


async def test_too_many_callers_wait_in_vain_and_do_not_blame_the_server(redis: RedisServer) -> None:
    async with Remote(redis.url, connections=2, timeout_seconds=5.0) as remote:
        with contextlib.closing(redis.admin()) as admin:
            admin.client_pause(800)
        replies = await asyncio.gather(*(remote.unlink(KEY) for _ in range(200)))
        assert replies.count(0) == 2
        assert replies.count(NoReply.SATURATED) == 198
        assert remote.state == "up"
        assert remote.stats().connections <= 3


async def test_a_smaller_pool_in_the_url_does_not_blame_the_server(redis: RedisServer) -> None:
    async with Remote(f"{redis.url}?max_connections=1", connections=8) as remote:
        replies = await asyncio.gather(*(remote.unlink(KEY) for _ in range(8)))
        assert NoReply.SATURATED in replies
        assert NoReply.FAILED not in replies
        assert remote.state == "up"


async def test_many_callers_on_few_connections_are_all_served(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragagent.remote.slots.SLOT_SECONDS", 10.0)
    async with Remote(redis.url, connections=4, timeout_seconds=5.0) as remote:
        replies = await asyncio.gather(*(remote.unlink(KEY) for _ in range(64)))
        assert replies == [0] * 64
        assert remote.stats().connections <= 5


async def test_a_purge_takes_its_prefix_literally(redis: RedisServer, remote: Remote) -> None:
    for number in range(1200):
        await remote.set(f"rag:1:{{a*}}:{number}", b"x", ttl=60)
    for other in ("rag:1:{ab}:1", "rag:s:session"):
        await remote.set(other, b"x", ttl=60)
    assert await remote.purge("rag:1:{a*}:") == (1200, True)
    with contextlib.closing(redis.admin()) as admin:
        assert sorted(admin.keys()) == [b"rag:1:{ab}:1", b"rag:s:session"]


async def test_keys_come_in_pages_that_end_with_the_reason_why_there_are_no_more(
    redis: RedisServer, remote: Remote
) -> None:
    with contextlib.closing(redis.admin()) as admin:
        admin.mset({f"rag:1:{number}": b"x" for number in range(1200)} | {"other": b"x"})
    pages = [page async for page in remote.pages("rag:1:")]
    assert len({key for page in pages if not isinstance(page, NoReply) for key in page}) == 1200
    redis.kill()
    await until_open(remote)
    assert [page async for page in remote.pages("rag:1:")] == [NoReply.OPEN]


async def test_a_purge_that_runs_out_of_time_says_so(remote: Remote) -> None:
    assert await remote.purge("rag:1:", timeout_seconds=0) == (0, False)


async def test_its_connections_bear_its_name_and_are_gone_when_it_closes(redis: RedisServer) -> None:
    async def named() -> int:
        return sum(client["name"] == "ragagent:w1" for client in admin.client_list())

    with contextlib.closing(redis.admin()) as admin:
        async with Remote(redis.url, client_name="ragagent:w1") as remote:
            await asyncio.gather(*(remote.get(KEY) for _ in range(8)))
            assert 1 <= await named() <= 9

        async def gone() -> bool:
            return not await named()

        await eventually(gone)
        assert await remote.get(KEY) is NoReply.OFF


async def test_closing_is_quick_while_the_server_hangs(redis: RedisServer, remote: Remote) -> None:
    redis.pause()
    await until_open(remote)
    async with asyncio.timeout(5):
        await remote.aclose()


async def test_no_log_line_holds_what_a_command_carried(
    redis: RedisServer, remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with contextlib.closing(redis.admin()) as admin:
        admin.rpush("rag:1:list", SECRET)
        assert await remote.get("rag:1:list") is NoReply.REFUSED
        admin.config_set("maxmemory", 1)
        await remote.set(KEY, SECRET.encode(), ttl=5)
    redis.kill()
    for _ in range(FAILURES + 1):
        await remote.set(KEY, SECRET.encode(), ttl=5)
    assert caplog.records
    assert SECRET not in caplog.text


def test_a_forked_child_may_not_use_its_parents_connections() -> None:
    program = """
import asyncio, os
from ragagent.remote.connection import Remote
remote = Remote("redis://127.0.0.1:1")
child = os.fork()
if not child:
    try:
        asyncio.run(remote.get("key"))
    except RuntimeError as exc:
        os._exit(7 if "after the fork" in str(exc) else 1)
    os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@contextlib.asynccontextmanager
async def tls_in_front_of(port: int, directory: Path) -> AsyncIterator[tuple[int, Path]]:
    """Accept TLS and pass the bytes on to `port`; yield the port and the certificate to trust."""
    certificate, key = _certificate(directory)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pipe(reader, inner_writer), _pipe(inner_reader, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], certificate


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
        await writer.wait_closed()


def _certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (directory / "redis.crt").write_bytes(certificate.public_bytes(pem))
    (directory / "redis.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory / "redis.crt", directory / "redis.key"


async def test_a_script_runs_also_after_the_server_has_forgotten_it(redis: RedisServer) -> None:
    script = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])"
    async with Remote(redis.url) as remote:
        assert await remote.run(script, ["{a}:x"], [b"\xff1"]) == b"\xff1"
        with contextlib.closing(redis.admin()) as admin:
            admin.script_flush()
        assert await remote.run(script, ["{a}:x"], ["2"]) == b"2"
        redis.kill()
        assert isinstance(await remote.run(script, ["{a}:x"], ["3"]), NoReply)


async def test_its_keys_come_in_pages_and_say_what_they_weigh(redis: RedisServer, remote: Remote) -> None:
    with contextlib.closing(redis.admin()) as admin:
        admin.mset({f"rag:1:{number}": b"x" * 1000 for number in range(1200)})
        admin.set("other", b"x")
        admin.expire("rag:1:7", 60)
    pages = [page async for page in remote.pages("rag:1:")]
    assert len({key for page in pages if not isinstance(page, NoReply) for key in page}) == 1200
    weighed = [await remote.weigh(key) for key in ("rag:1:7", "rag:1:8", "rag:1:none")]
    assert isinstance(weighed[0], tuple)
    assert isinstance(weighed[1], tuple)
    assert 1000 <= weighed[0][0] <= 2000
    assert weighed[0][1] == pytest.approx(60, abs=5)
    assert (weighed[1][1], weighed[2]) == (None, None)


async def test_pages_end_with_the_reason_why_there_are_no_more(redis: RedisServer, remote: Remote) -> None:
    redis.kill()
    await until_open(remote)
    assert [page async for page in remote.pages("rag:1:")] == [NoReply.OPEN]
    assert await remote.weigh(KEY) is NoReply.OPEN
