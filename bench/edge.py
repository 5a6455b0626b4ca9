"""What the edge itself costs: a constant answer through our two lanes and through others' servers, one process each.

    python bench/edge.py [--rounds 7] [--seconds 2] [--connections 32]

All servers run for the whole time and take turns, so that a noisy machine is noisy for each of them; only the ratios of
one run mean anything. Others' servers run on asyncio, as we do, and without access logs. The server's own processor
time hears less of the neighbours than its throughput.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import peers
from constant import BODY, app
from ragagent.config import Server as Settings
from ragagent.edge.server import Server

REQUEST = (
    b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\nAuthorization: Bearer none\r\nUser-Agent: bench\r\n\r\n"
)
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Contender:
    name: str
    command: list[str]
    port: int
    rates: list[float] = field(default_factory=list)
    micros: list[float] = field(default_factory=list)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--seconds", type=float, default=2.0)
    arguments.add_argument("--connections", type=int, default=32)
    arguments.add_argument("--serve", metavar="LANE:PORT", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.serve:
        lane, _, port = options.serve.partition(":")
        asyncio.run(serve(lane, int(port)))
        return
    with contextlib.ExitStack() as stack:
        found = contenders(others=peers.install())
        pids = {contender.name: stack.enter_context(running(contender)) for contender in found}
        for _ in range(options.rounds):
            for contender in found:
                before = cpu_seconds(pids[contender.name])
                count, seconds = load(contender.port, options.connections, options.seconds)
                contender.rates.append(count / seconds)
                contender.micros.append((cpu_seconds(pids[contender.name]) - before) / count * 1e6)
    report(found, options.connections)


def contenders(*, others: bool) -> list[Contender]:
    python = str(peers.PYTHON)
    ours = [sys.executable, str(Path(__file__))]
    ports = [free_port() for _ in range(4)]
    uvicorn = ["-m", "uvicorn", "constant:app", "--loop", "asyncio", "--http", "httptools", "--no-access-log"]
    hypercorn = ["-m", "hypercorn", "constant:app", "--worker-class", "asyncio"]
    found = [
        Contender("ragagent, llhttp", [*ours, "--serve", f"llhttp:{ports[0]}"], ports[0]),
        Contender("ragagent, hypercorn", [*ours, "--serve", f"hypercorn:{ports[1]}"], ports[1]),
        Contender("uvicorn, httptools", [python, *uvicorn, "--port", str(ports[2])], ports[2]),
        Contender("hypercorn", [python, *hypercorn, "--bind", f"127.0.0.1:{ports[3]}"], ports[3]),
    ]
    return found if others else found[:2]


async def serve(lane: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", port))
        settings = Settings(http1="llhttp" if lane == "llhttp" else "hypercorn", graceful_seconds=1.0)
        server = Server(app, [listener.dup()], settings)
        await server.startup()
        await server.accept()
        over = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
        await over.wait()
        await server.drain()


@contextlib.contextmanager
def running(contender: Contender) -> Iterator[int]:
    """Run one server for as long as the block; yield its pid once it answers."""
    process = subprocess.Popen(contender.command, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL)
    try:
        wait(contender, process)
        yield serving_pid(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def wait(contender: Contender, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", contender.port), 1) as client:
            client.sendall(REQUEST)
            if client.recv(65_536).startswith(b"HTTP/1.1 200"):
                return
        time.sleep(0.1)
    raise SystemExit(f"{contender.name} did not start")


def serving_pid(pid: int) -> int:
    """Return the process that answers: Hypercorn's command starts a worker, beside a tracker of resources."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return max((int(child) for child in children), key=cpu_seconds, default=pid)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def load(port: int, connections: int, seconds: float) -> tuple[int, float]:
    """Ask from another process, and return how many answers came in how many seconds."""
    parent, child = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=lambda: child.send(ask(port, connections, seconds)), daemon=True
    )
    process.start()
    counted: tuple[int, float] = parent.recv()
    process.join()
    return counted


def ask(port: int, connections: int, seconds: float) -> tuple[int, float]:
    """Keep one request in flight on each of the connections."""
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(REQUEST)
        selector.register(client, selectors.EVENT_READ, client)
    count, begun = 0, time.monotonic()
    while (now := time.monotonic()) < begun + seconds:
        for key, _ in selector.select(1.0):
            received = key.data.recv(65_536)
            if not received:
                raise SystemExit("the server closed a connection that it was asked to keep")
            if received.endswith(BODY):
                count += 1
                key.data.sendall(REQUEST)
    return count, now - begun


def report(found: list[Contender], connections: int) -> None:
    rates = {contender.name: statistics.median(contender.rates) for contender in found}
    micros = {contender.name: statistics.median(contender.micros) for contender in found}
    first = found[0].name
    print(
        f"constant answer, keep-alive, {connections} connections, {len(found[0].rates)} interleaved rounds, medians\n"
    )
    print("| server | requests/s | llhttp lane is | CPU µs/request | llhttp lane needs |")
    print("|---|---:|---:|---:|---:|")
    for name in rates:
        rate, micro = rates[first] / rates[name], micros[first] / micros[name]
        print(f"| {name} | {rates[name]:,.0f} | {rate:.2f}x | {micros[name]:.1f} | {micro:.2f}x |")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
