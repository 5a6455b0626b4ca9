"""The pidfile: one holder, named to the others; a stale file stops nobody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ragagent.errors import ConfigError
from ragagent.supervisor.pidfile import Pidfile


def test_holder_is_written_and_gone_afterwards(tmp_path: Path) -> None:
    pidfile = Pidfile.acquire(tmp_path / "supervisor.pid")
    assert (tmp_path / "supervisor.pid").read_text() == f"{os.getpid()}\n"
    pidfile.release()
    assert not (tmp_path / "supervisor.pid").exists()


def test_second_holder_is_told_who_the_first_is(tmp_path: Path) -> None:
    pidfile = Pidfile.acquire(tmp_path / "supervisor.pid")
    with pytest.raises(ConfigError, match=f"pid {os.getpid()}"):
        Pidfile.acquire(tmp_path / "supervisor.pid")
    pidfile.release()
    Pidfile.acquire(tmp_path / "supervisor.pid").release()


def test_file_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "supervisor.pid").write_text("123456789012\n")
    pidfile = Pidfile.acquire(tmp_path / "supervisor.pid")
    assert (tmp_path / "supervisor.pid").read_text() == f"{os.getpid()}\n"
    pidfile.release()
