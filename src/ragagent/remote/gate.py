"""The one place where Redis' errors end: a command passes here, and comes back as its reply or as a `NoReply`.

Not every error means that the server is gone:

    TimeoutError, ConnectionError, LOADING, CLUSTERDOWN   nobody answers             opens the breaker
    ResponseError (OOM, READONLY, NOPERM...)              it answers: no             degraded; reads may go on
    no free connection                                    we are too many            says nothing about the server

READONLY is among the refusals although every write is lost: a replica answers at once, and its reads are as good as
ever, since a key names what its value was made from. But the name that led to it may lead to the primary by now, so the
idle connections are let go of.

No log line may hold what a command carried: keys are hashes, but values are prompts and answers, and a server may quote
either in its error. So of an error only its class is written.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TypeVar

from redis.exceptions import ClusterDownError, MasterDownError, MaxConnectionsError, ReadOnlyError, ResponseError

from ragagent.remote import meter
from ragagent.remote.breaker import Breaker
from ragagent.remote.slots import Slots
from ragagent.remote.topology import Topology

T = TypeVar("T")

RENEW_SECONDS = 1.0

log = logging.getLogger(__name__)


class NoReply(StrEnum):
    """Why there is no answer from Redis: to a caller a miss, to an operator a counter."""

    OFF = "off"
    OPEN = "open"  # the breaker is
    SATURATED = "saturated"
    REFUSED = "refused"
    FAILED = "failed"


class Gate:
    """Lets commands to `topology` pass while they are of use. Not `is_on`: there is no Redis, as every call hears.

    `budget_seconds` bounds one command; None: the timeouts of its socket are enough.
    """

    def __init__(self, topology: Topology, slots: int, budget_seconds: float | None, *, is_on: bool) -> None:
        self.no_replies: Counter[str] = Counter()
        self.slots = Slots(slots)
        self._topology = topology
        self._budget_seconds = budget_seconds
        self._is_on = is_on
        self._is_closed = False
        self._owner = os.getpid()
        self._refused: set[str] = set()  # the commands that the server answered with an error the last time
        self._complained: set[str] = set()  # those that were logged since the server came up
        self._renew_after = 0.0
        self._breaker = Breaker(topology.ping, self._on_change)

    @property
    def lets_pass(self) -> bool:
        """Whether a command sent now would touch the server."""
        return self._is_on and not self._is_closed and not self._breaker.is_open

    @property
    def is_breaker_open(self) -> bool:
        return self._breaker.is_open

    @property
    def is_well(self) -> bool:
        """Whether the server takes what it is asked."""
        return not self._breaker.is_open and not self._refused

    async def check(self) -> None:
        if self._is_on and not self._is_closed and not await self._breaker.check():
            self._breaker.allows()

    async def aclose(self, timeout_seconds: float) -> None:
        self._is_closed = True
        await self._breaker.aclose(timeout_seconds)

    async def call(self, command: str, run: Callable[[], Awaitable[T]], *, callers: int = 1) -> T | NoReply:
        """Run one command, or say why not. The one place where Redis' errors end. `command` names it in the log.

        `callers` is how many will be told when there is no reply.
        """
        reason = self.barred()
        if reason:
            return self.without(reason, callers)
        if not await self.slots.take():
            return self.without(NoReply.SATURATED, callers)
        begun = time.perf_counter()
        error: Exception | None = None
        try:
            async with asyncio.timeout(self._budget_seconds):
                return self._on_reply(command, await _heeded(run))
        except MaxConnectionsError as exc:
            error = exc
            return self.without(NoReply.SATURATED, callers)
        except Exception as exc:  # Any error: neither redis-py's bugs nor a stranger on the port may reach an answer.
            error = exc
            return self.without(await self._on_error(command, exc), callers)
        finally:
            self.slots.give()
            meter.ended(command, time.perf_counter() - begun, error)

    def barred(self) -> NoReply | None:
        """Return why no command may pass now; None: it may."""
        self.check_owner()
        if not self._is_on or self._is_closed:
            return NoReply.OFF
        return None if self._breaker.allows() else NoReply.OPEN

    def check_owner(self) -> None:
        """Raises RuntimeError: two processes on one socket would read each other's replies."""
        if os.getpid() != self._owner:
            raise RuntimeError(f"This Redis client belongs to process {self._owner}; create one after the fork.")

    def without(self, reason: NoReply, callers: int = 1) -> NoReply:
        """Count callers that get no reply."""
        self.no_replies[reason] += callers
        meter.without(reason, callers)
        return reason

    def _on_reply(self, command: str, reply: T) -> T:
        self._breaker.succeeded()
        self._refused.discard(command)
        return reply

    async def _on_error(self, command: str, exc: Exception) -> NoReply:
        is_lost = isinstance(exc, ClusterDownError) and not isinstance(exc, MasterDownError)
        if not isinstance(exc, ResponseError) or is_lost:
            self._breaker.failed(exc)
            return NoReply.FAILED
        self._breaker.succeeded()
        self._refused.add(command)
        if command not in self._complained:
            self._complained.add(command)
            log.warning("Redis refuses %s (%s); what asked goes on without.", command.upper(), type(exc).__name__)
        if isinstance(exc, ReadOnlyError):
            await self._renew()
        return NoReply.REFUSED

    async def _renew(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._renew_after:
            return
        self._renew_after = now + RENEW_SECONDS
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                await self._topology.renew()
        except Exception as exc:
            log.info("Closing idle connections to Redis took no proper end: %s.", type(exc).__name__)

    def _on_change(self, cause: Exception | None) -> None:
        if cause is None:
            self._refused.clear()
            self._complained.clear()
            log.info("Redis answers: workers share through it.")
        else:
            log.warning("Redis does not answer (%s): each worker is by itself until it does.", type(cause).__name__)


async def _heeded(run: Callable[[], Awaitable[T]]) -> T:
    """Return what `run` returns. Raises CancelledError where it was cancelled meanwhile.

    redis-py loses a cancellation now and then, and goes on: whoever waits for the task to end would wait for ever.
    """
    task = asyncio.current_task()
    assert task is not None
    asked = task.cancelling()
    try:
        reply = await run()
    except Exception:
        if task.cancelling() > asked:
            raise asyncio.CancelledError from None
        raise
    if task.cancelling() > asked:
        raise asyncio.CancelledError
    return reply
