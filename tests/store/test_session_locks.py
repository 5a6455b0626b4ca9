"""One holder of a session at a time: in this process, among processes, and never a dead one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ragagent.errors import Unavailable
from ragagent.store.session_locks import SessionLocks

HOLDER = """
import sys, time
from pathlib import Path
from ragagent.store.session_locks import SessionLocks
held = SessionLocks(Path(sys.argv[1])).take("talk")
print("held" if held else "refused", flush=True)
time.sleep(60)
"""


def test_a_session_has_one_holder_and_others_are_not_concerned(tmp_path: Path) -> None:
    locks = SessionLocks(tmp_path / "locks")
    held = locks.take("a")
    assert held is not None
    assert locks.take("a") is None
    assert SessionLocks(tmp_path / "locks").take("a") is None
    assert locks.take("b") is not None
    held.close()
    held.close()
    assert locks.take("a") is not None


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    locks = SessionLocks(tmp_path / "locks")
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "locks")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert locks.take("talk") is None
        process.kill()
        process.wait(10)
        assert locks.take("talk") is not None


def test_those_who_share_the_file_and_no_others_have_its_identity(tmp_path: Path) -> None:
    assert SessionLocks(tmp_path / "locks").identity == SessionLocks(tmp_path / "locks").identity
    assert SessionLocks(tmp_path / "locks").identity != SessionLocks(tmp_path / "others").identity


def test_a_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"'locks' cannot be opened: No such file"):
        SessionLocks(tmp_path / "gone" / "locks").take("a")
