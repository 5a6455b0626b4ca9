"""The bell: it wakes the indexer, and nothing that happens to it matters."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import anyio
import pytest

from ragagent.engine import doorbell
from ragagent.engine.doorbell import Door, Doorbell

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "indexer.sock"


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the bell can end a wait."""
    monkeypatch.setattr(doorbell, "POLL_SECONDS", 60.0)


@pytest.mark.usefixtures("never")
async def test_a_ring_ends_the_wait_also_when_it_came_before(path: Path, opened: ExitStack) -> None:
    door, bell = opened.enter_context(closing(Door(path))), opened.enter_context(closing(Doorbell(path)))
    bell.ring()
    with anyio.fail_after(10):
        await door.wait()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(door.wait)
        await anyio.wait_all_tasks_blocked()
        bell.ring()


async def test_several_rings_are_one(path: Path, opened: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    door, bell = opened.enter_context(closing(Door(path))), opened.enter_context(closing(Doorbell(path)))
    for _ in range(3):
        bell.ring()
    await door.wait()
    monkeypatch.setattr(doorbell, "POLL_SECONDS", 0.05)
    started = time.monotonic()
    await door.wait()
    assert time.monotonic() - started >= 0.04, "an old ring was heard again"


async def test_without_a_ring_the_wait_ends_by_itself(
    path: Path, opened: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell, "POLL_SECONDS", 0.01)
    with anyio.fail_after(10):
        await opened.enter_context(closing(Door(path))).wait()


async def test_a_bell_that_nobody_hears_is_no_error(path: Path, opened: ExitStack) -> None:
    bell = opened.enter_context(closing(Doorbell(path)))
    bell.ring()
    Door(path).close()
    bell.ring()


async def test_a_door_that_is_full_does_not_hold_up_who_rings(path: Path, opened: ExitStack) -> None:
    opened.enter_context(closing(Door(path)))
    bell = opened.enter_context(closing(Doorbell(path)))
    for _ in range(5000):
        bell.ring()


@pytest.mark.usefixtures("never")
async def test_the_door_opened_last_gets_the_bells(path: Path, opened: ExitStack) -> None:
    old, bell = opened.enter_context(closing(Door(path))), opened.enter_context(closing(Doorbell(path)))
    new = opened.enter_context(closing(Door(path)))
    old.close()
    bell.ring()
    with anyio.fail_after(10):
        await new.wait()


@pytest.mark.usefixtures("never")
async def test_a_data_directory_may_lie_deeper_than_a_socket_address_reaches(tmp_path: Path, opened: ExitStack) -> None:
    path = tmp_path.joinpath(*["a directory of some length"] * 8, "indexer.sock")
    path.parent.mkdir(parents=True)
    door, bell = opened.enter_context(closing(Door(path))), opened.enter_context(closing(Doorbell(path)))
    bell.ring()
    with anyio.fail_after(10):
        await door.wait()


def test_nobody_else_may_ring(path: Path, opened: ExitStack) -> None:
    opened.enter_context(closing(Door(path)))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.is_socket()


async def test_a_stray_message_is_only_a_ring(path: Path, opened: ExitStack) -> None:
    door = opened.enter_context(closing(Door(path)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"x" * 10_000, str(path))
    with anyio.fail_after(10):
        await door.wait()


def test_the_worker_hears_its_own_bell_whether_or_not_there_is_an_indexer(path: Path, opened: ExitStack) -> None:
    heard: list[str] = []
    bell = opened.enter_context(closing(Doorbell(path, lambda: heard.append("ring"))))
    bell.ring()
    assert heard == ["ring"]
