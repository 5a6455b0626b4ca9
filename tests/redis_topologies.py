"""Several real redis-servers as one: a cluster, and a primary and a replica under a sentinel. Ready in two seconds."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import redis

from redis_server import NEEDED, RedisServer, find_redis_server, free_port

READY_SECONDS = 20.0
DOWN_MILLISECONDS = "500"  # after which the others take a node for dead


@dataclass(frozen=True)
class RedisCluster:
    """Three primaries. Where one of them without a replica is gone, the cluster is down until it comes back."""

    nodes: list[RedisServer]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])

    def wait(self) -> None:
        """Return once every node says that all slots are served."""
        for node in self.nodes:
            _wait_until(partial(_is_whole, node))

    def flush(self) -> None:
        for node in self.nodes:
            node.command("FLUSHALL")


@dataclass(frozen=True)
class RedisSentinel:
    primary: RedisServer
    replica: RedisServer
    port: int

    @property
    def url(self) -> str:
        """The first of the sentinels is not there."""
        return f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{self.port}/mymaster/0"


@contextlib.contextmanager
def redis_cluster(replicas: int = 0) -> Iterator[RedisCluster]:
    """Run three primaries, with so many replicas each."""
    with _directory() as directory, contextlib.ExitStack() as stack:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", DOWN_MILLISECONDS)
        nodes = [
            _start(stack, directory / str(number), *options, port=_node_port()) for number in range(3 * (1 + replicas))
        ]
        create = [str(Path(_executable()).with_name("redis-cli")), "--cluster", "create", "--cluster-yes"]
        create += ["--cluster-replicas", str(replicas), *(f"127.0.0.1:{node.port}" for node in nodes)]
        subprocess.run(create, check=True, capture_output=True, timeout=READY_SECONDS)
        cluster = RedisCluster(nodes)
        cluster.wait()
        _wait_until(lambda: sum(map(_is_synced, nodes)) == 3 * replicas)
        yield cluster


@contextlib.contextmanager
def redis_sentinel() -> Iterator[RedisSentinel]:
    with _directory() as directory, contextlib.ExitStack() as stack:
        primary = _start(stack, directory / "primary")
        diskless = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")
        replica = _start(stack, directory / "replica", "--replicaof", "127.0.0.1", str(primary.port), *diskless)
        port = free_port()
        settings = directory / "sentinel.conf"
        settings.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {directory}\nsentinel monitor mymaster 127.0.0.1 {primary.port} 1\n"
            f"sentinel down-after-milliseconds mymaster {DOWN_MILLISECONDS}\nsentinel failover-timeout mymaster 2000\n"
        )
        sentinel = subprocess.Popen([_executable(), str(settings), "--sentinel"], stdout=subprocess.DEVNULL)
        stack.callback(sentinel.wait)
        stack.callback(sentinel.kill)
        with contextlib.closing(replica.admin()) as admin:
            _wait_until(lambda: admin.info("replication")["master_link_status"] == "up")
        with contextlib.closing(redis.Redis(port=port)) as admin:
            _wait_until(lambda: _knows_a_replica(admin))
        yield RedisSentinel(primary, replica, port)


def _is_whole(node: RedisServer) -> bool:
    return bool(node.command("CLUSTER INFO")["cluster_state"] == "ok")


def _is_synced(node: RedisServer) -> bool:
    role = node.command("ROLE")
    return bool(role[0] == b"slave" and role[3] == b"connected")


def _knows_a_replica(sentinel: redis.Redis) -> bool:
    try:
        return bool(sentinel.sentinel_slaves("mymaster"))
    except redis.RedisError:
        return False


def _executable() -> str:
    executable = find_redis_server()
    if executable is None:
        raise RuntimeError(NEEDED)
    return executable


def _node_port() -> int:
    """Return a free port whose neighbour, ten thousand further, is free as well: nodes speak to each other there."""
    while True:
        port = free_port()
        if port < 55_000:
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.bind(("127.0.0.1", port + 10_000))
                return port


def _start(stack: contextlib.ExitStack, directory: Path, *arguments: str, port: int | None = None) -> RedisServer:
    directory.mkdir()
    server = RedisServer(_executable(), directory, *arguments, port=port).start()
    stack.callback(server.kill)
    return server


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        yield Path(directory)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("these servers did not find each other")
        time.sleep(0.02)
