"""The right to compute one value, held by one process of all that share the Redis, and what the others learn meanwhile.

Beside the value, under keys of the same slot (its name has braces, see cache/keys.py):

    NAME:lease           the holder's token; gone, with its time, when the holder is
    NAME:told:TOKEN      the pieces that this holder has told so far, and how it ended if it failed
    NAME:followed        somebody wants the pieces; without it none are sent

Who has the lease renews it; who loses it, stopped or cut off for longer than its time, can store nothing any more: a
commit compares the token, in the same script. The token is drawn at random. A counter would order the holders, but
equality is all that is asked here, and a counter that a full server evicts starts anew and lets an old token match.

Nothing here raises: without an answer from Redis there is a NoReply, and every process is on its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ragagent.remote.connection import NoReply, Remote

LEASE_SECONDS = 3.0  # how long those who wait for a killed holder wait
ENDED_SECONDS = 2.0  # how long it can be read that a holder has failed: longer than anyone's pause between two polls

# A value is newer if its stamp differs from that of the value which the asker knows; KEYS[1] value, KEYS[2] lease.
_NEWER = """
local function newer(stamp, from, to)
  local now = redis.call('GETRANGE', KEYS[1], from, to)
  if now ~= '' and now ~= stamp then return redis.call('GET', KEYS[1]) end
  return false
end
"""
_ACQUIRE = (
    _NEWER
    + """
local value = newer(ARGV[1], ARGV[2], ARGV[3])
if value then return {value, false} end
if redis.call('SET', KEYS[2], ARGV[4], 'NX', 'PX', ARGV[5]) then return {false, ARGV[4]} end
return {false, redis.call('GET', KEYS[2])}
"""
)
_POLL = (
    _NEWER
    + """
if ARGV[5] ~= '0' then redis.call('SET', KEYS[4], '', 'PX', ARGV[5]) end
return {newer(ARGV[1], ARGV[2], ARGV[3]), redis.call('GET', KEYS[2]), redis.call('LRANGE', KEYS[3], ARGV[4], -1)}
"""
)
# Pieces are numbered, so that a beat whose reply was lost may be sent again: what is there already is not added twice.
_BEAT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {-1, 0} end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local length = redis.call('LLEN', KEYS[2])
for number = length - ARGV[3] + 1, #ARGV - 3 do
  if number < 1 then break end
  length = redis.call('RPUSH', KEYS[2], ARGV[3 + number])
end
if length > 0 then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return {redis.call('EXISTS', KEYS[3]), length}
"""
# The body of `store`: its KEYS begin with the value's, its ARGV with the value and its milliseconds; it returns 1, or 0
# where it refuses the value. Then the lease stays, for the holder to end it with last words.
_COMMIT = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return -1 end
local lease = table.remove(KEYS, 2)
table.remove(ARGV, 1)
local function store()
%s
end
local stored = store()
if stored == 1 then redis.call('UNLINK', lease) end
return stored
"""
_STORE = "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1"
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1])
if ARGV[2] ~= '' then
  redis.call('RPUSH', KEYS[2], ARGV[2])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
return 1
"""


Committed = Literal["stored", "lost", "refused"]
_COMMITTED: Mapping[int, Committed] = {1: "stored", -1: "lost", 0: "refused"}


@dataclass(frozen=True, slots=True)
class Newer:
    """There is a value already, one that the asker did not know."""

    blob: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """Another process has the lease."""

    token: bytes


@dataclass(frozen=True, slots=True)
class Heard:
    """What a look at another's work shows: the value, if there is a newer one; who holds the lease; further pieces."""

    blob: bytes | None
    token: bytes | None
    pieces: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Beat:
    """How the lease stands: `is_lost`; or whether anyone wants the pieces, and how many of them Redis has."""

    is_lost: bool
    is_followed: bool
    pieces: int


class Lease:
    """Held by this process, until it ends it or has not renewed it for `seconds`."""

    def __init__(self, remote: Remote, name: str, token: bytes, seconds: float) -> None:
        self._remote = remote
        self._name = name
        self._token = token
        self.seconds = seconds

    async def beat(self, first: int, pieces: Sequence[bytes]) -> Beat | NoReply:
        """Renew it, and hand on `pieces`, the first of which is number `first` of all."""
        keys = [_lease(self._name), _told(self._name, self._token), _followed(self._name)]
        reply = await self._remote.run(_BEAT, keys, [self._token, milliseconds(self.seconds), first, *pieces])
        if isinstance(reply, NoReply):
            return reply
        state, length = reply
        return Beat(is_lost=state < 0, is_followed=state > 0, pieces=length)

    async def commit(
        self,
        blob: bytes,
        ttl: float,
        *,
        store: str = _STORE,
        keys: Sequence[str] = (),
        arguments: Sequence[int] = (),
    ) -> Committed | NoReply:
        """Store the value for `ttl` seconds and end the lease. "lost": another may have it, and nothing is stored.

        `store`: the script that does it, with further keys and arguments of its own. "refused": it did not; the lease
        is still ours.
        """
        names = [self._name, _lease(self._name), *keys]
        reply = await self._remote.run(_COMMIT % store, names, [self._token, blob, milliseconds(ttl), *arguments])
        return reply if isinstance(reply, NoReply) else _COMMITTED[reply]

    async def release(self, last_words: bytes = b"") -> None:
        """End the lease without a value. `last_words`: a last piece, which is read for a while yet."""
        keys = [_lease(self._name), _told(self._name, self._token)]
        await self._remote.run(_RELEASE, keys, [self._token, last_words, milliseconds(ENDED_SECONDS)])


class Leases:
    """`stamp`: which bytes of a stored value tell it from every other value of its name."""

    def __init__(self, remote: Remote, stamp: slice, seconds: float = LEASE_SECONDS) -> None:
        self._remote = remote
        self._range = [stamp.start, stamp.stop - 1]
        self._seconds = seconds

    async def acquire(self, name: str, known: bytes = b"") -> Lease | Held | Newer | NoReply:
        """Take the lease of `name`, unless it is held, or there is a value whose stamp is not `known`."""
        token = secrets.token_hex(8).encode()
        reply = await self._remote.run(
            _ACQUIRE, [name, _lease(name)], [known, *self._range, token, milliseconds(self._seconds)]
        )
        if isinstance(reply, NoReply):
            return reply
        blob, holder = reply
        if blob is not None:
            return Newer(blob)
        return Lease(self._remote, name, token, self._seconds) if holder == token else Held(holder)

    async def poll(
        self, name: str, holder: bytes, known: bytes = b"", first: int = 0, *, wants_pieces: bool = False
    ) -> Heard | NoReply:
        """Look at what the holder of that token does: its pieces from number `first` on, if it sends any."""
        keys = [name, _lease(name), _told(name, holder), _followed(name)]
        wanted = milliseconds(self._seconds) if wants_pieces else 0
        reply: Any = await self._remote.run(_POLL, keys, [known, *self._range, first, wanted])
        return reply if isinstance(reply, NoReply) else Heard(*reply)


def _lease(name: str) -> str:
    return f"{name}:lease"


def _told(name: str, token: bytes) -> str:
    return f"{name}:told:{token.decode()}"


def _followed(name: str) -> str:
    return f"{name}:followed"


def milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
