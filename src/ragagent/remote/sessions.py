"""Sessions in Redis: where hosts meet that each keep their own. A copy, always: what is lost here is told again.

    rag:s:{digest}:turns   a hash: v, the position of the last turn; f, of the first one; b, bytes; d, ids of turns that
                           were deleted; and each turn under its position, as its id, a line feed, and its bytes
    rag:s:{digest}:busy    who holds the session, for as long as nobody says that he lives: the lease of one host

One hash, because Redis evicts key by key: a session is there whole or not at all. Turns are added by compare-and-set on
the last one's position and id, so that adding them twice adds them once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ragagent.remote.connection import NoReply, Remote

LEASE_SECONDS = 10.0  # of a host that died; within a host the next one takes over at once
RENEW_SECONDS = 3.0

# All scripts: KEYS[1] the turns, KEYS[2] the lease. An element is "id\nbytes".

# ARGV: token ('': no lease is wanted), identity, lease in ms, position and id of the last turn that we know.
# Returns {'busy'} | {'absent'} | {'here', v, position of the first element, deleted ids, element...}.
_ENTER = """
if ARGV[1] ~= '' then
    local holder = redis.call('GET', KEYS[2])
    -- Whoever shares our identity has locked the session on its host before it asks here: the last one is gone.
    if holder and string.sub(holder, 1, #ARGV[2]) ~= ARGV[2] then return {'busy'} end
    redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
end
local head = redis.call('HMGET', KEYS[1], 'v', 'f', 'd')
if not head[1] then return {'absent'} end
local last, first = tonumber(head[1]), tonumber(head[2])
local known = redis.call('HGET', KEYS[1], ARGV[4])
local from = first
if known and string.sub(known, 1, #ARGV[5] + 1) == ARGV[5] .. '\\n' then from = tonumber(ARGV[4]) + 1 end
local reply = {'here', last, from, head[3] or ''}
for position = from, last do reply[#reply + 1] = redis.call('HGET', KEYS[1], position) end
return reply
"""

# ARGV: position and id that the new turns follow, 1 if they may begin a session, TTL in ms, most turns, most bytes,
# element... Returns 'kept' | 'moved': another turn is the last | 'absent': there is no session that they could follow.
_APPEND = """
local base, count = tonumber(ARGV[1]), #ARGV - 6
local last = tonumber(redis.call('HGET', KEYS[1], 'v'))
local function stands(position, id)
    local found = redis.call('HGET', KEYS[1], position)
    return found and string.sub(found, 1, #id + 1) == id .. '\\n'
end
if not last then
    if base > 0 and ARGV[3] == '0' then return 'absent' end
    redis.call('HSET', KEYS[1], 'f', base + 1, 'b', 0)
elseif stands(base + count, string.match(ARGV[#ARGV], '^[^\\n]*')) then
    return 'kept'
elseif last ~= base or not stands(base, ARGV[2]) then
    return 'moved'
end
local head = redis.call('HMGET', KEYS[1], 'f', 'b')
local first, bytes = tonumber(head[1]), tonumber(head[2])
for number = 1, count do
    redis.call('HSET', KEYS[1], base + number, ARGV[6 + number])
    bytes = bytes + #ARGV[6 + number]
end
last = base + count
while first < last and (last - first >= tonumber(ARGV[5]) or bytes > tonumber(ARGV[6])) do
    bytes = bytes - redis.call('HSTRLEN', KEYS[1], first)
    redis.call('HDEL', KEYS[1], first)
    first = first + 1
end
redis.call('HSET', KEYS[1], 'v', last, 'f', first, 'b', bytes)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 'kept'
"""

# ARGV: token, lease in ms; 0: give it up. Returns 1 while the token holds it.
_HOLD = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[2]) end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
"""

# ARGV: position, id, the element that stays in the turn's place.
_BLANK = """
local found = redis.call('HGET', KEYS[1], ARGV[1])
if not found or string.sub(found, 1, #ARGV[2] + 1) ~= ARGV[2] .. '\\n' then return 0 end
local head = redis.call('HMGET', KEYS[1], 'b', 'd')
local deleted = head[2] and head[2] .. ',' .. ARGV[2] or ARGV[2]
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3], 'b', head[1] - #found + #ARGV[3], 'd', deleted)
return 1
"""


@dataclass(frozen=True, slots=True)
class Element:
    """A turn as it lies in Redis: `body` is nobody's business here."""

    id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Here:
    """What Redis has of a session: turns from position `first` to `last`, which we did not know or know differently."""

    last: int
    first: int
    deleted: tuple[str, ...]
    elements: tuple[Element, ...]


Entered = Here | Literal["busy", "absent"] | NoReply
Appended = Literal["kept", "moved", "absent"] | NoReply


class SharedSessions:
    """`identity` is what those have in common who exclude each other by locks of their own before they come here."""

    def __init__(self, remote: Remote, identity: str, *, idle_seconds: float, max_turns: int, max_bytes: int) -> None:
        self._remote = remote
        self._identity = f"{identity}/"
        self._limits = (round(idle_seconds * 1000), max_turns, max_bytes)

    def token(self) -> str:
        """Return a token for one lease."""
        return f"{self._identity}{secrets.token_hex(8)}"

    async def enter(self, session: str, token: str, position: int, head: str) -> Entered:
        """Take the lease, and return what we do not know if `head` at `position` is the last turn that we know."""
        lease = round(LEASE_SECONDS * 1000)
        reply = await self._remote.run(_ENTER, _keys(session), [token, self._identity, lease, position, head])
        if isinstance(reply, NoReply):
            return reply
        kind = _text(reply[0])
        if kind == "here":
            deleted = tuple(filter(None, _text(reply[3]).split(",")))
            return Here(int(reply[1]), int(reply[2]), deleted, tuple(map(_element, reply[4:])))
        return "busy" if kind == "busy" else "absent"

    async def append(
        self, session: str, base: int, head: str, elements: Sequence[Element], *, is_whole: bool = False
    ) -> Appended:
        """Add turns after `head` at position `base`. `is_whole`: where there is no such session, make it of them."""
        packed = [element.id.encode() + b"\n" + element.body for element in elements]
        arguments: list[bytes | str | int] = [base, head, int(is_whole), *self._limits, *packed]
        reply = await self._remote.run(_APPEND, _keys(session), arguments)
        if isinstance(reply, NoReply):
            return reply
        kind = _text(reply)
        return "kept" if kind == "kept" else "moved" if kind == "moved" else "absent"

    async def renew(self, session: str, token: str) -> None:
        await self._remote.run(_HOLD, _keys(session), [token, round(LEASE_SECONDS * 1000)])

    async def leave(self, session: str, token: str) -> None:
        await self._remote.run(_HOLD, _keys(session), [token, 0])

    async def blank(self, session: str, position: int, element: Element) -> None:
        """Put `element` into the place of the turn of that id, and tell whoever enters that it was deleted."""
        body = element.id.encode() + b"\n" + element.body
        await self._remote.run(_BLANK, _keys(session), [position, element.id, body])

    async def drop(self, session: str) -> None:
        """Drop the copy: it makes no sense."""
        await self._remote.unlink(_keys(session)[0])


def _keys(session: str) -> list[str]:
    # A digest: what clients call their sessions is nobody's business in Redis, and may hold anything.
    digest = hashlib.sha256(session.encode()).hexdigest()[:32]
    return [f"rag:s:{{{digest}}}:turns", f"rag:s:{{{digest}}}:busy"]


def _element(raw: Any) -> Element:
    name, _, body = bytes(raw or b"").partition(b"\n")
    return Element(name.decode("utf-8", "replace"), body)


def _text(raw: Any) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
