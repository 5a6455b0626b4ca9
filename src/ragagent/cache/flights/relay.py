"""One computation for all processes, on whatever host, that share a Redis.

Who gets the lease computes, tells its pieces to those who want them, and hands its failure on; the others look for the
value, with pauses that differ, and hear what the holder hears. A holder that dies leaves its lease to one of them. It
never costs an answer: where Redis does not answer, or the holder is silent for too long, each process computes itself.
No one holds a connection while it waits.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgpack

from ragagent import errors
from ragagent.cache.flights.flight import Teller, Work
from ragagent.errors import RagagentError, Unavailable
from ragagent.remote.connection import NoReply
from ragagent.remote.lease import Held, Lease, Leases, Newer

T = TypeVar("T")

PATIENCE_SECONDS = 30.0  # without a value or a piece from one who is alive
FIRST_PAUSE, LAST_PAUSE = 0.010, 0.080
SEND_SECONDS = 0.04  # between two sendings of pieces, while somebody wants them
BEAT_SECONDS = 0.25  # between two looks at whether somebody does
BROKEN_OFF = "The answer broke off: the process that wrote it is gone. Try again."

_PIECE, _FAILURE, _WHOLE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Computed(Generic[T]):
    """By us. `lease` stores it; None: there was nobody to agree with."""

    value: T
    lease: Lease | None


@dataclass(frozen=True, slots=True)
class Received:
    """By another process: the bytes that it stored."""

    blob: bytes


class Relay:
    def __init__(self, leases: Leases, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._leases = leases
        self._patience = patience_seconds

    async def run(
        self, name: str, work: Work[T], tell: Teller, *, known: bytes = b"", wants_pieces: bool = False
    ) -> Computed[T] | Received:
        """Return what `work` returns, here or in another process; a value whose stamp is `known` will not do.

        Pieces go to `tell` either way. Raises what `work` raises, the same in every process that waits for it;
        Unavailable: the process that computed is gone, and what it has told already cannot be taken back.
        """
        deadline = _now() + self._patience
        while _now() < deadline:
            match await self._leases.acquire(name, known):
                case Lease() as lease:
                    return Computed(await _lead(lease, work, tell), lease)
                case Newer(blob):
                    return Received(blob)
                case Held(token):
                    followed = _Followed(self._leases, name, token, known, wants_pieces)
                    value = await followed.hear(tell, self._patience)
                    if value is not None:
                        return Received(value)
                case NoReply():
                    break
        return Computed(await work(tell), None)


async def _lead(lease: Lease, work: Work[T], tell: Teller) -> T:
    pieces: list[bytes] = []

    def tell_all(piece: Any) -> None:
        tell(piece)
        pieces.append(msgpack.packb([_PIECE, piece]))

    try:
        async with _kept(lease, pieces, tell):
            return await work(tell_all)
    except RagagentError as exc:
        await lease.release(msgpack.packb([_FAILURE, errors.packed(exc)]))
        raise
    except BaseException:
        # Cancelled, or a bug. Whether another fares better is for one of them to try.
        await lease.release()
        raise


@asynccontextmanager
async def _kept(lease: Lease, pieces: list[bytes], tell: Teller) -> AsyncIterator[None]:
    """Renew the lease for the length of the block, and send the pieces while anyone wants them."""
    task = asyncio.create_task(_beat(lease, pieces, tell), name="cache lease")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        tell.is_followed = False


async def _beat(lease: Lease, pieces: list[bytes], tell: Teller) -> None:
    sent = 0
    while True:
        await asyncio.sleep(SEND_SECONDS if tell.is_followed else min(BEAT_SECONDS, lease.seconds / 3))
        state = await lease.beat(sent, pieces[sent:] if tell.is_followed else [])
        if isinstance(state, NoReply):
            continue
        tell.is_followed = state.is_followed
        if state.is_lost:
            return  # Another may have it. Ours goes on, for those who wait here.
        sent = state.pieces


class _Followed:
    """Another process at work, as seen from here."""

    def __init__(self, leases: Leases, name: str, holder: bytes, known: bytes, wants_pieces: bool) -> None:
        self._leases = leases
        self._name = name
        self._holder = holder
        self._known = known
        self._wants_pieces = wants_pieces
        self._heard = 0

    async def hear(self, tell: Teller, patience: float) -> bytes | None:
        """Return the value once it is there; None: it will not come from this holder, and nothing was told yet."""
        pause = FIRST_PAUSE
        deadline = _now() + patience
        while _now() < deadline:
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))
            pause = min(pause * 1.5, LAST_PAUSE)
            heard = await self._leases.poll(
                self._name, self._holder, self._known, self._heard, wants_pieces=self._wants_pieces
            )
            if isinstance(heard, NoReply):
                if not self._heard:
                    return None
                continue
            whole = self._take(heard.pieces, tell)
            if heard.pieces:
                pause, deadline = SEND_SECONDS, _now() + patience
            if heard.blob is not None or whole is not None:
                return heard.blob or whole
            if heard.token != self._holder:
                break
        if self._heard:
            raise Unavailable(BROKEN_OFF)
        return None

    def _take(self, pieces: Sequence[bytes], tell: Teller) -> bytes | None:
        """Tell the pieces. Return the whole, where it comes as one, for it is not kept. Raises the holder's failure."""
        for blob in pieces:
            kind, piece = _unpacked(blob)
            if kind == _FAILURE:
                raise piece
            if kind == _WHOLE:
                value: bytes = piece
                return value
            self._heard += 1
            tell(piece)
        return None


def whole(blob: bytes) -> bytes:
    """Return the last words of a holder whose value is not to be kept: those who follow asked when it did."""
    words: bytes = msgpack.packb([_WHOLE, blob])
    return words


def _unpacked(words: bytes) -> tuple[int, Any]:
    """Return a piece as it was told, or the error that is the holder's last word, and which of them it is."""
    try:
        kind, piece = msgpack.unpackb(words)
        if kind == _WHOLE and not isinstance(piece, bytes):
            raise TypeError("A whole is bytes.")
        return (kind, errors.unpacked(piece)) if kind == _FAILURE else (kind, piece)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException):
        return _FAILURE, Unavailable(BROKEN_OFF)  # Not what any of us has written.


def _now() -> float:
    return asyncio.get_running_loop().time()
