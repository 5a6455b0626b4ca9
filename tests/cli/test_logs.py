from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from fake_supervisor import FakeSupervisor
from ragagent.cli.logs import unseen

Run = Callable[..., Result]

LINES = ["one", "two\x1b[2J", "three"]


def reply(lines: list[str], file: Path | None = None) -> dict[str, Any]:
    return {"ok": True, "lines": lines, "file": str(file) if file is not None else None}


@contextmanager
def following(directory: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "ragagent.cli.main", "logs", "-f", "--data", str(directory), *arguments]
    # Unbuffered, so that a line is read when it is written.
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def ended(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGINT)
    return process.wait(30)


def test_logs_are_the_supervisors_lines_without_what_commands_a_terminal(run: Run, supervisor: FakeSupervisor) -> None:
    result = run("logs", "-n", "3", "--data", supervisor({"logs": reply(LINES)}))
    assert (result.exit_code, result.stdout) == (0, "one\ntwo[2J\nthree\n")
    assert supervisor.requests == [{"command": "logs", "lines": 3}]


def test_a_file_that_the_supervisor_names_is_read_instead(run: Run, supervisor: FakeSupervisor, tmp_path: Path) -> None:
    file = tmp_path / "ragagent.log"
    file.write_text("worker: a\nworker: b\n")
    directory = supervisor({"logs": reply(LINES, file)})
    assert run("logs", "-n", "1", "--data", directory).stdout == "worker: b\n"
    told = json.loads(run("logs", "--json", "--data", directory).stdout)
    assert told == {"ok": True, "lines": ["worker: a", "worker: b"], "file": str(file)}


def test_logs_as_json_is_the_reply_itself(run: Run, supervisor: FakeSupervisor) -> None:
    assert json.loads(run("logs", "--json", "--data", supervisor({"logs": reply(LINES)})).stdout) == reply(LINES)


def test_a_file_that_cannot_be_read_is_exit_code_1(run: Run, supervisor: FakeSupervisor, tmp_path: Path) -> None:
    result = run("logs", "--data", supervisor({"logs": reply(LINES, tmp_path / "gone.log")}))
    assert result.exit_code == 1
    assert "gone.log' cannot be read" in result.stderr


def test_logs_without_a_server_is_exit_code_1(run: Run, tmp_path: Path) -> None:
    result = run("logs", "-f", "--data", tmp_path)
    assert result.exit_code == 1
    assert "ragagent serve" in result.stderr


def test_a_file_is_followed_across_its_rotation_until_ctrl_c(supervisor: FakeSupervisor, tmp_path: Path) -> None:
    file = tmp_path / "ragagent.log"
    file.write_text("a\nb\n")
    with following(supervisor({"logs": reply(LINES, file)}), "-n", "1") as process:
        assert line(process) == "b"
        file.rename(tmp_path / "ragagent.log.1")
        file.write_text("c\n")
        assert line(process) == "c"
        assert ended(process) == 0


def test_without_a_file_the_supervisor_is_asked_again_also_after_its_restart(supervisor: FakeSupervisor) -> None:
    logged = [f"line {number}" for number in range(9)]
    directory = supervisor({"logs": lambda _: reply(logged)})
    with following(directory, "-n", "1", "--json") as process:
        assert json.loads(line(process)) == {"line": "line 8"}
        logged.append("line 9")
        assert json.loads(line(process)) == {"line": "line 9"}
        supervisor.stop()
        assert process.stderr is not None
        assert "Waiting for one" in process.stderr.readline()
        logged[:] = ["another supervisor"]
        supervisor({"logs": lambda _: reply(logged)})
        assert json.loads(line(process)) == {"line": "another supervisor"}
        assert ended(process) == 0


@pytest.mark.parametrize(
    ("earlier", "later", "new"),
    [
        ("", "", ""),
        ("", "ab", "ab"),
        ("abc", "abc", ""),
        ("abc", "abcde", "de"),
        ("abc", "cde", "de"),
        ("abc", "def", "def"),
        ("aab", "abab", "ab"),
        ("xyz", "", ""),
    ],
)
def test_what_a_later_window_shows_beyond_an_earlier_one(earlier: str, later: str, new: str) -> None:
    assert unseen(list(earlier), list(later)) == list(new)
