"""The child's end of the lifeline, with the test as supervisor at the other end of a real socket pair."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ragagent.lifeline import BEAT_SECONDS, Lifeline, Order, attend

pytestmark = pytest.mark.anyio


class Supervisor:
    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.end = end
        self._unread = b""

    def heard(self) -> list[dict[str, Any]]:
        try:
            while data := self.end.recv(65_536):
                self._unread += data
        except BlockingIOError:
            pass
        *lines, self._unread = self._unread.split(b"\n")
        return [json.loads(line) for line in lines]

    def say(self, order: str) -> None:
        self.end.sendall(json.dumps({"order": order}).encode() + b"\n")


@pytest.fixture
def pair() -> Iterator[tuple[Lifeline, Supervisor]]:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        yield Lifeline(theirs), Supervisor(ours)


Pair = tuple[Lifeline, Supervisor]


@pytest.fixture(autouse=True)
def sigterm() -> Iterator[None]:
    """`attend` leaves SIGTERM ignored, as a child that is about to exit wants it; this process is none."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_every_word_arrives_as_one_json_line(pair: Pair) -> None:
    lifeline, supervisor = pair
    lifeline.starting()
    lifeline.ready()
    lifeline.serving()
    lifeline.beat({"in_flight": 3})
    lifeline.finished()
    lifeline.failed("no index")
    assert supervisor.heard() == [
        {"state": "starting", "pid": os.getpid()},
        {"state": "ready"},
        {"state": "serving"},
        {"beat": {"in_flight": 3}},
        {"state": "finished"},
        {"failed": "no index"},
    ]


def test_supervisor_that_does_not_read_blocks_nobody_and_misses_no_state(pair: Pair) -> None:
    lifeline, supervisor = pair
    begun = time.monotonic()
    for _ in range(5_000):
        lifeline.beat({"filler": "x" * 200})
    lifeline.ready()
    assert time.monotonic() - begun < 5
    states: list[Mapping[str, Any]] = []
    for _ in range(100):
        states += [message for message in supervisor.heard() if "state" in message]
        lifeline.beat({})
    assert states == [{"state": "ready"}]


def test_orders_arrive_whole_even_in_pieces(pair: Pair) -> None:
    lifeline, supervisor = pair
    assert lifeline.orders() == []
    supervisor.end.send(b'{"order": "se')
    assert lifeline.orders() == []
    supervisor.end.send(b'rve"}\n')
    assert lifeline.orders() == [Order("serve")]
    supervisor.end.close()
    assert lifeline.orders() is None


async def test_attend_beats_with_the_stats(pair: Pair) -> None:
    lifeline, supervisor = pair
    async with attend(lifeline, lambda: {"requests": 7}):
        await asyncio.sleep(BEAT_SECONDS * 2.5)
    beats = [message["beat"] for message in supervisor.heard() if "beat" in message]
    assert len(beats) >= 2
    assert beats[0]["requests"] == 7
    assert beats[0]["loop_lag_seconds"] >= 0


async def test_blocked_loop_does_not_beat_and_says_so_afterwards(pair: Pair) -> None:
    lifeline, supervisor = pair
    async with attend(lifeline):
        await asyncio.sleep(0.1)
        supervisor.heard()
        time.sleep(1.0)  # noqa: ASYNC251 - a blocked loop is what this is about
        assert supervisor.heard() == []
        await asyncio.sleep(0.1)
        (beat,) = supervisor.heard()
        assert beat["beat"]["loop_lag_seconds"] > 0.3


async def test_stats_that_fail_do_not_stop_the_heart(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    lifeline, supervisor = pair

    def broken() -> Mapping[str, Any]:
        raise RuntimeError("no numbers")

    async with attend(lifeline, broken):
        await asyncio.sleep(0.05)
    assert [set(message["beat"]) for message in supervisor.heard() if "beat" in message] == [{"loop_lag_seconds"}]
    assert "cannot be collected" in caplog.text


async def test_order_to_serve_is_awaited(pair: Pair) -> None:
    lifeline, supervisor = pair
    async with attend(lifeline) as duty:
        waiting = asyncio.create_task(duty.told_to_serve())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        supervisor.say("serve")
        assert await asyncio.wait_for(waiting, 5) is True


async def test_sigterm_is_the_order_to_leave(pair: Pair) -> None:
    lifeline, supervisor = pair
    async with attend(lifeline) as duty:
        supervisor.say("serve")
        assert await asyncio.wait_for(duty.told_to_serve(), 5)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(duty.told_to_leave(), 5)
        assert duty.leaving
    assert [message for message in supervisor.heard() if "state" in message] == [{"state": "stopping"}]


async def test_sigterm_before_the_order_to_serve_means_never_to_serve(pair: Pair) -> None:
    lifeline, _ = pair
    async with attend(lifeline) as duty:
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(duty.told_to_serve(), 5) is False


async def test_end_of_the_supervisor_is_the_order_to_leave(pair: Pair) -> None:
    lifeline, supervisor = pair
    async with attend(lifeline) as duty:
        supervisor.end.close()
        await asyncio.wait_for(duty.told_to_leave(), 5)


def test_settled_signals_ignore_the_terminal_and_dump_on_abort() -> None:
    program = (
        "import os, signal, time\n"
        "from ragagent.lifeline import settle_signals\n"
        "settle_signals()\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "os.kill(os.getpid(), signal.SIGHUP)\n"
        "def stuck():\n"
        "    os.kill(os.getpid(), signal.SIGABRT)\n"
        "stuck()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == -signal.SIGABRT
    assert "in stuck" in done.stderr
