"""What Redis holds of ours, counted by kind; and its purge. Keys are hashes and values stay where they are.

Straight to the server that the configuration names: it must work while no worker does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from ragagent.cache import keys
from ragagent.config import Redis
from ragagent.errors import Invalid, Unavailable
from ragagent.remote.connection import NoReply, Remote

T = TypeVar("T")

OURS = "rag:"  # the cache's keys, and what else stands under the one prefix
SAMPLE = 100  # keys of each kind that are weighed
PATIENCE_SECONDS = 2.0  # for one command: nobody's request waits


@dataclass
class Kind:
    """The keys of one kind; of those that were weighed, their bytes and the seconds that they have left."""

    name: str
    count: int = 0
    tenants: set[str] = field(default_factory=set)
    sample: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    lives: list[float] = field(default_factory=list)
    endless: int = 0

    def add(self, key: str, owner: str) -> None:
        self.count += 1
        self.tenants.add(owner)
        # Every key has the same chance to be weighed, however many there are.
        if len(self.sample) < SAMPLE:
            self.sample.append(key)
        elif (at := random.randrange(self.count)) < SAMPLE:
            self.sample[at] = key

    @property
    def bytes(self) -> int:
        """The bytes of all, by those that were weighed."""
        return round(self.count * sum(self.sizes) / len(self.sizes)) if self.sizes else 0


@dataclass(frozen=True)
class Census:
    kinds: Sequence[Kind]
    complete: bool  # False: there are more keys than were to be counted


def census(settings: Redis, limit: int) -> Census:
    """Count what stands there, `limit` keys at most. Raises Invalid, Unavailable."""
    return _asked(settings, lambda remote: _counted(remote, limit))


def purge(settings: Redis, prefix: str) -> tuple[int, bool]:
    """Unlink all under `prefix`; return how many, and whether that was all. Raises Invalid, Unavailable."""
    return _asked(settings, lambda remote: remote.purge(prefix, timeout_seconds=60.0))


def _asked(settings: Redis, ask: Callable[[Remote], Awaitable[T]]) -> T:
    async def asking() -> T:
        remote = Remote(settings.url, timeout_seconds=PATIENCE_SECONDS, client_name="ragagent-cli")
        async with remote:
            if not remote.is_reachable:
                raise Unavailable("Redis does not answer; is 'redis.url' right, and does the server run?")
            return await ask(remote)

    if not settings.url:
        raise Invalid("No Redis is configured: name it with --config, as 'redis.url', or in REDIS_URL.")
    return asyncio.run(asking())


async def _counted(remote: Remote, limit: int) -> Census:
    kinds: dict[str, Kind] = {}
    complete = True
    async with aclosing(remote.pages(OURS)) as pages:
        async for page in pages:
            for key in _answer(page):
                text = key.decode("ascii", "replace") if isinstance(key, bytes) else key
                name, owner = _parts(text)
                kinds.setdefault(name, Kind(name)).add(text, owner)
            if sum(kind.count for kind in kinds.values()) >= limit:
                complete = False
                break
    for kind in kinds.values():
        await _weigh(remote, kind)
    return Census(sorted(kinds.values(), key=lambda kind: -kind.bytes), complete)


async def _weigh(remote: Remote, kind: Kind) -> None:
    for key in kind.sample:
        found = _answer(await remote.weigh(key))
        if found is None:
            continue
        size, seconds = found
        kind.sizes.append(size)
        if seconds is None:
            kind.endless += 1
        else:
            kind.lives.append(seconds)
    kind.lives.sort()


def _answer(reply: T | NoReply) -> T:
    if isinstance(reply, NoReply):
        raise Unavailable(f"Redis stopped answering amid the count ({reply}).")
    return reply


def _parts(key: str) -> tuple[str, str]:
    """Return the kind, and whose it is: "answer" of rag:1:{tenant}:answer:..., "rag:x" of what is not the cache's."""
    if key.startswith(keys.PREFIX):
        owner, _, rest = key.removeprefix(keys.PREFIX).partition(":")
        return rest.partition(":")[0] or "other", owner
    name, _, owner = key.removeprefix(OURS).partition(":")
    return f"{OURS}{name}", owner.partition(":")[0]
