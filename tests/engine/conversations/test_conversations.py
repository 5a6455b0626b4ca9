"""Conversations over a real database: nothing acknowledged is lost, and two turns at once come one after the other."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from ragagent import config
from ragagent.engine.conversations.conversations import Conversations
from ragagent.errors import Conflict, Invalid, NotFound, OverQuota, TooLarge
from ragagent.store import turns
from ragagent.store.database import Database
from ragagent.store.session_locks import SessionLocks
from ragagent.types import Caller, Message, Turn

pytestmark = pytest.mark.anyio

ANN = Caller("tenant-a")
SETTINGS = config.Session()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database.open(tmp_path / "ragagent.db")) as opened:
        yield opened


def over(database: Database, **settings: object) -> Conversations:
    """Return what another worker of the same host would have."""
    locks = SessionLocks(database.path.with_name("sessions.lock"))
    return Conversations(database, locks, dataclasses.replace(SETTINGS, **settings))  # type: ignore[arg-type]


@pytest.fixture
def talks(database: Database) -> Conversations:
    return over(database)


def turn(text: str, answer: str = "Yes.") -> Turn:
    return Turn(turns.new_id(), 1000, (Message("user", text),), answer)


async def say(talks: Conversations, text: str, key: str | None = None, fingerprint: bytes = b"") -> Turn:
    async with talks.session(ANN, "talk", key, fingerprint) as talk:
        if talk.replayed is not None:
            return talk.replayed
        said = turn(text)
        await talk.append(said)
        return said


async def said(talks: Conversations) -> list[str]:
    async with talks.session(ANN, "talk") as talk:
        return [each.messages[0].content for each in talk.turns]


async def test_a_line_of_turns_of_no_session(talks: Conversations) -> None:
    first, second = turn("One?"), turn("Two?")
    await talks.add(ANN, first)
    await talks.add(ANN, second, parent=first.id)
    assert await talks.chain(ANN, second.id) == (first, second)
    assert await talks.get(ANN, first.id) == first
    await talks.delete(ANN, first.id)
    with pytest.raises(NotFound, match=first.id):
        await talks.get(ANN, first.id)
    assert await talks.chain(ANN, second.id) == (second,)


async def test_a_session_remembers_what_was_said_and_answered(talks: Conversations) -> None:
    async with talks.session(ANN, "talk") as talk:
        assert (talk.turns, talk.history, talk.state) == ((), (), "ok")
        await talk.append(turn("Who?", "Ada."))
    async with talks.session(ANN, "talk") as talk:
        assert talk.history == (Message("user", "Who?"), Message("assistant", "Ada."))


async def test_turns_at_once_come_one_after_the_other_over_two_workers(database: Database) -> None:
    workers = [over(database, wait_seconds=30.0), over(database, wait_seconds=30.0)]
    seen: list[int] = []

    async def think(number: int) -> None:
        async with workers[number % 2].session(ANN, "talk") as talk:
            seen.append(len(talk.turns))
            await asyncio.sleep(0.01)
            await talk.append(turn(f"{len(talk.turns)}"))

    await asyncio.gather(*map(think, range(8)))
    assert seen == list(range(8))
    assert await said(workers[0]) == [str(number) for number in range(8)]


async def test_a_turn_waits_for_the_one_before_it_only_so_long(database: Database) -> None:
    hasty = over(database, wait_seconds=0.05)
    async with over(database).session(ANN, "talk"):
        with pytest.raises(Conflict, match=r"waited 0\.05 s") as raised:
            await say(hasty, "Me?")
    assert (raised.value.code, raised.value.retry_after) == ("session_busy", 1)
    await say(hasty, "And now?")


async def test_a_request_that_ends_without_a_turn_leaves_the_session_as_it_was(talks: Conversations) -> None:
    await say(talks, "One?")
    with pytest.raises(ZeroDivisionError):
        async with talks.session(ANN, "talk"):
            raise ZeroDivisionError
    assert await said(talks) == ["One?"]


async def test_a_retry_gets_the_turn_that_its_first_try_made(talks: Conversations) -> None:
    first = await say(talks, "One?", "key-1", b"body")
    await say(talks, "Two?")
    assert await say(talks, "One?", "key-1", b"body") == first
    assert await said(talks) == ["One?", "Two?"]
    with pytest.raises(Invalid, match="'key-1' has made a turn") as raised:
        await say(talks, "Other?", "key-1", b"other body")
    assert raised.value.code == "idempotency_key_reused"


async def test_what_was_answered_is_kept_although_the_client_has_gone(talks: Conversations) -> None:
    with anyio.CancelScope() as scope:
        async with talks.session(ANN, "talk") as talk:
            scope.cancel()
            await talk.append(turn("One?"))
    assert await said(talks) == ["One?"]


async def test_bounds(database: Database) -> None:
    talks = over(database, turn_bytes=10, tenant_sessions=1, tenant_bytes=100)
    with pytest.raises(TooLarge, match="'messages' holds 12 bytes; a turn that is kept may have 10"):
        await talks.admit(ANN, [Message("user", "六字" * 2)])
    await talks.admit(ANN, [Message("user", "ten bytes!")])
    await say(talks, "One?")
    with pytest.raises(OverQuota, match="1 sessions"):
        async with talks.session(ANN, "another"):
            raise AssertionError
    async with talks.session(Caller("tenant-b"), "another"):
        pass
    await talks.add(ANN, turn("T" * 100))
    with pytest.raises(OverQuota, match="100 bytes"):
        await talks.admit(ANN, [])
