from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ragagent.remote.batch import MOST_KEYS, Reads

pytestmark = pytest.mark.anyio


class Server:
    """Answers each key with itself, once it may; fails as it is told."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.may_answer = asyncio.Event()
        self.failure: str | Exception | None = None

    async def fetch(self, keys: Sequence[str]) -> list[bytes | None] | str:
        self.asked.append(list(keys))
        await self.may_answer.wait()
        if isinstance(self.failure, Exception):
            raise self.failure
        return self.failure or [key.encode() for key in keys]


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
def reads(server: Server) -> Reads[str]:
    return Reads(server.fetch)


def ask(reads: Reads[str], *keys: str) -> list[asyncio.Task[bytes | str | None]]:
    return [asyncio.create_task(reads.get(key)) for key in keys]


async def turn() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


async def test_a_caller_alone_goes_at_once(reads: Reads[str], server: Server) -> None:
    server.may_answer.set()
    assert [await reads.get("a"), await reads.get("b")] == [b"a", b"b"]
    assert server.asked == [["a"], ["b"]]


async def test_who_asks_while_another_is_under_way_goes_with_those_of_the_same_turn(
    reads: Reads[str], server: Server
) -> None:
    first = ask(reads, "a", "b", "c")
    await turn()
    second = ask(reads, "d", "e", "d")
    await turn()
    assert server.asked == [["a"], ["b", "c"], ["d", "e", "d"]]
    server.may_answer.set()
    assert await asyncio.gather(*first, *second) == [b"a", b"b", b"c", b"d", b"e", b"d"]


async def test_a_batch_is_bounded(reads: Reads[str], server: Server) -> None:
    keys = [str(number) for number in range(1 + MOST_KEYS * 2 + 5)]
    asking = ask(reads, *keys)
    await turn()
    server.may_answer.set()
    assert await asyncio.gather(*asking) == [key.encode() for key in keys]
    assert [len(keys) for keys in server.asked] == [1, MOST_KEYS, MOST_KEYS, 5]


async def test_all_of_a_failed_batch_get_the_one_reason(reads: Reads[str], server: Server) -> None:
    server.failure = "failed"
    server.may_answer.set()
    assert await asyncio.gather(*ask(reads, "a", "b", "c")) == ["failed"] * 3


async def test_an_error_reaches_everyone_who_asked(reads: Reads[str], server: Server) -> None:
    server.failure = RuntimeError("forked")
    server.may_answer.set()
    replies = await asyncio.gather(*ask(reads, "a", "b", "c"), return_exceptions=True)
    assert replies == [server.failure] * 3


async def test_a_caller_that_leaves_takes_only_itself_out(reads: Reads[str], server: Server) -> None:
    early, first, second, third = ask(reads, "a", "b", "c", "d")
    await asyncio.sleep(0)
    second.cancel()  # before the batch has left
    await turn()
    assert server.asked == [["a"], ["b", "d"]]
    early.cancel()
    first.cancel()  # under way
    server.may_answer.set()
    replies = await asyncio.gather(early, first, second, third, return_exceptions=True)
    assert [type(reply) for reply in replies[:3]] == [asyncio.CancelledError] * 3
    assert replies[3] == b"d"
    assert await reads.get("e") == b"e"
    assert server.asked[-1] == ["e"]
