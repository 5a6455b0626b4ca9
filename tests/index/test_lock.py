from __future__ import annotations

import os
from pathlib import Path

import portalocker
import pytest

from ragagent.errors import Conflict
from ragagent.index import lock


def test_only_one_writer_at_a_time(tmp_path: Path) -> None:
    with lock.writer(tmp_path), pytest.raises(Conflict, match="another indexer"):
        lock.writer(tmp_path)
    lock.writer(tmp_path).close()


def test_a_waiting_writer_calls_back_and_takes_over(tmp_path: Path) -> None:
    first = lock.writer(tmp_path)
    looks = []

    def waiting() -> None:
        looks.append(1)
        if len(looks) == 3:
            first.close()

    lock.writer(tmp_path, wait_seconds=30, waiting=waiting).close()
    assert len(looks) == 3


def test_a_callback_may_end_the_wait(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with lock.writer(tmp_path), pytest.raises(KeyboardInterrupt):
        lock.writer(tmp_path, wait_seconds=30, waiting=stop)


def test_readers_share_and_shut_the_writer_out(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    path.touch()
    one, two = lock.shared(path), lock.shared(path)
    assert one is not None
    assert two is not None
    assert lock.exclusive(path) is None
    one.close()
    assert lock.exclusive(path) is None
    two.close()
    alone = lock.exclusive(path)
    assert alone is not None
    assert lock.shared(path) is None
    alone.close()


def test_a_lock_on_nothing_is_none(tmp_path: Path) -> None:
    assert lock.shared(tmp_path / "LOCK") is None
    assert lock.exclusive(tmp_path / "LOCK") is None
    assert lock.identity(tmp_path / "LOCK") is None


def test_a_file_deleted_between_open_and_lock_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "LOCK"
    path.touch()
    really_lock = portalocker.lock

    def lock_late(descriptor: int, flags: portalocker.LockFlags) -> None:
        path.unlink()
        path.touch()
        really_lock(descriptor, flags)

    monkeypatch.setattr(portalocker, "lock", lock_late)
    assert lock.shared(path) is None


def test_a_lock_is_closed_on_exec(tmp_path: Path) -> None:
    held = lock.writer(tmp_path)
    assert not os.get_inheritable(held._descriptor)
    held.close()
    held.close()
