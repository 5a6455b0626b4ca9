from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

from fake_supervisor import FakeSupervisor, Request
from terminal import Terminal, running

Run = Callable[..., Result]

PROGRAM = ("-m", "ragagent.cli.main", "top")
LEAVE = "\x1b[?25h\x1b[?1049l"


def status(requests: int) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "pid": None,
        "slot": 0,
        "role": "indexer",
        "release": 2,
        "state": "running",
        "age_seconds": 61.0,
    }
    entry |= {"heartbeat_age_seconds": 0.2, "restarts": 0, "last_exit": None, "stats": {}}
    worker = entry | {"pid": 100, "role": "worker", "stats": {"in_flight": 3, "connections": 7, "requests": requests}}
    supervisor = {"pid": 99, "version": "0.1.0", "state": "running", "release": 2, "started_at": 0.0}
    supervisor |= {"reloads": {"ok": 1, "failed": 0, "last_error": None}, "workers_wanted": 1}
    return {"ok": True, "supervisor": supervisor, "workers": [worker], "indexer": entry, "stores": []}


@pytest.fixture
def busy(supervisor: FakeSupervisor) -> Path:
    """The directory of a server that has answered 1000 requests more at each look."""

    def answer(_: Request) -> dict[str, Any]:
        return status(1000 * len(supervisor.requests))

    return supervisor({"status": answer})


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    found = Terminal(120, 30)
    yield found
    found.close()


def test_without_a_terminal_it_prints_frames_with_rates(run: Run, busy: Path) -> None:
    result = run("top", "--count", "2", "--interval", "0.1", "--data", busy)
    assert result.exit_code == 0, result.stderr
    first, second = result.stdout.split("\n\nrunning")
    assert first.startswith("running · release 2 · 1 of 1 workers")
    assert "requests/s" in first
    assert "worker 0" in first
    assert "worker 0" in second
    assert "\x1b" not in result.stdout


def test_as_json_each_frame_is_a_line_with_the_status_and_the_rates(run: Run, busy: Path) -> None:
    lines = run("top", "--count", "2", "--interval", "0.1", "--json", "--data", busy).stdout.splitlines()
    told = [json.loads(line) for line in lines]
    assert [reply["workers"][0]["stats"]["requests"] for reply in told] == [2000, 3000]
    for reply in told:
        assert reply["workers"][0]["requests_per_second"] > 0
        assert reply["supervisor"]["requests_per_second"] == reply["workers"][0]["requests_per_second"]
        assert reply["indexer"]["requests_per_second"] is None


def test_a_lost_supervisor_is_a_frame_too(run: Run, supervisor: FakeSupervisor) -> None:
    seen = iter((status(0), None, status(5)))
    directory = supervisor({"status": lambda _: next(seen)})
    lines = run("top", "--count", "2", "--interval", "0.1", "--json", "--data", directory).stdout.splitlines()
    lost, found = map(json.loads, lines)
    assert lost["error"]["code"] == "unavailable"
    assert found["supervisor"]["requests_per_second"] is None, "a rate across the gap would be of another supervisor"


def test_no_server_to_begin_with_is_exit_code_1(run: Run, tmp_path: Path) -> None:
    result = run("top", "--data", tmp_path)
    assert result.exit_code == 1
    assert "ragagent serve" in result.stderr


def test_a_pipe_is_ended_by_ctrl_c_without_a_trace(busy: Path) -> None:
    command = [sys.executable, *PROGRAM, "--interval", "0.1", "--data", str(busy)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (0, b"")


@pytest.mark.parametrize("key", ["q", "Q", "\x03"])
def test_on_a_terminal_it_is_drawn_anew_until_a_key_ends_it(terminal: Terminal, busy: Path, key: str) -> None:
    before = terminal.attributes()
    with running(terminal, *PROGRAM, "--interval", "0.1", "--data", busy) as process:
        shown = click.unstyle(terminal.wait_for("requests/s"))
        assert "worker 0" in shown
        terminal.press(key)
        terminal.wait_for(LEAVE)
        assert process.wait(30) == 0
    assert terminal.attributes() == before
    assert terminal.shown.endswith(LEAVE)


def test_it_ends_after_its_count_and_obeys_no_color(terminal: Terminal, busy: Path) -> None:
    with running(terminal, *PROGRAM, "--count", "2", "--interval", "0.1", "--data", busy, NO_COLOR="1") as process:
        terminal.wait_for(LEAVE)
        assert process.wait(30) == 0
    assert terminal.shown.count("\x1b[H") == 2
    assert "\x1b[1m" not in terminal.shown


def test_a_resized_terminal_is_filled_at_once(terminal: Terminal, busy: Path) -> None:
    # The next look is an hour away: what is drawn is drawn for the new size alone.
    with running(terminal, *PROGRAM, "--interval", "3600", "--data", busy):
        assert "LAG" in terminal.wait_for("indexer")
        terminal.resize(80, 24)
        assert "LAG" not in terminal.wait_for("indexer")


def test_a_lost_supervisor_is_told_until_one_answers_again(
    terminal: Terminal, supervisor: FakeSupervisor, busy: Path
) -> None:
    with running(terminal, *PROGRAM, "--interval", "0.1", "--data", busy) as process:
        terminal.wait_for("requests/s")
        supervisor.stop()
        assert "Nothing new for" in terminal.wait_for("No supervisor answers")
        supervisor({"status": status(0)})
        terminal.wait_for("running · release 2")
        terminal.press("q")
        assert process.wait(30) == 0
