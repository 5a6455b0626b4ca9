"""What Redis holds of a store, by tag: so that what was read from it can be taken out again.

    rag:tags:{tenant}:<store>     sorted set: the keys that were read from the store, by when they expire
    rag:erased:{tenant}:<store>   hash: `removed` and `replaced`, as in `Erasure`

A value is stored, and filed, in one script, which refuses it where an erasure has been there before: a slow answer
cannot land behind it. What is filed and expired goes with each further value; the set outlives its last key. A server
that evicts sets before their keys (`allkeys-*`) may lose track of a value: it is out of reach, and goes when it
expires, and those that a worker holds itself are unlinked by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ragagent.cache import keys
from ragagent.cache.keys import Key
from ragagent.remote.connection import NoReply, Remote
from ragagent.remote.lease import Committed, Lease, milliseconds
from ragagent.types import Erasure

MARK_SECONDS = 3600  # longer than any answer takes: until then, whoever stores one has heard of the erasure himself
SPARE_SECONDS = 60
BATCH = 500

# KEYS: the value, then of each tag its set and its mark. ARGV: value, milliseconds, then of each tag written and shown.
_KEEP = f"""
local ttl = tonumber(ARGV[2])
for tag = 1, (#KEYS - 1) / 2 do
  local mark = redis.call('HMGET', KEYS[2 * tag + 1], 'removed', 'replaced')
  if tonumber(ARGV[2 * tag + 1]) < tonumber(mark[1] or 0) or tonumber(ARGV[2 * tag + 2]) < tonumber(mark[2] or 0) then
    return 0
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ttl)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for tag = 1, (#KEYS - 1) / 2 do
  local set = KEYS[2 * tag]
  redis.call('ZREMRANGEBYSCORE', set, '-inf', now)
  redis.call('ZADD', set, now + ttl, KEYS[1])
  local life = ttl + {SPARE_SECONDS * 1000}
  if redis.call('PTTL', set) < life then
    redis.call('PEXPIRE', set, life)
  end
end
return 1
"""

# KEYS: a store's set and its mark. ARGV: removed, replaced, then the keys that have been unlinked. Returns the next.
_TAKE = f"""
for at, field in ipairs({{'removed', 'replaced'}}) do
  if tonumber(ARGV[at]) > tonumber(redis.call('HGET', KEYS[2], field) or 0) then
    redis.call('HSET', KEYS[2], field, ARGV[at])
  end
end
redis.call('EXPIRE', KEYS[2], {MARK_SECONDS})
if #ARGV > 2 then
  redis.call('ZREM', KEYS[1], unpack(ARGV, 3))
end
return redis.call('ZRANGE', KEYS[1], 0, {BATCH - 1})
"""


async def keep(remote: Remote, key: Key, blob: bytes, ttl: float) -> None:
    """Store a value for `ttl` seconds and file it under the key's tags, unless it was erased meanwhile."""
    if key.tags:
        places, marks = _filed(key)
        await remote.run(_KEEP, [key.rendered, *places], [blob, milliseconds(ttl), *marks])
    else:
        await remote.set(key.rendered, blob, ttl)


async def commit(lease: Lease, key: Key, blob: bytes, ttl: float) -> Committed | NoReply:
    """Do the same with the right to do it; "refused": it was erased meanwhile."""
    places, marks = _filed(key)
    return await lease.commit(blob, ttl, store=_KEEP, keys=places, arguments=marks)


async def erase(remote: Remote, erasure: Erasure) -> bool:
    """Take out what was read from the store; return whether Redis has confirmed all of it."""
    names: Sequence[bytes] = ()
    while True:
        arguments: list[bytes | int] = [erasure.removed, erasure.replaced, *names]
        left = await remote.run(_TAKE, _places(erasure.tenant, erasure.store_id), arguments)
        if isinstance(left, NoReply):
            return False
        if not left:
            return True
        names = left
        if isinstance(await remote.unlink(*names), NoReply):
            return False


def _filed(key: Key) -> tuple[list[str], list[int]]:
    """Return of each tag its set and its mark, and what the marks are compared with."""
    places = [place for tag in key.tags for place in _places(key.tenant, tag.store_id)]
    return places, [number for tag in key.tags for number in (tag.written, tag.shown)]


def _places(tenant: str, store_id: str) -> list[str]:
    """Return the names of a store's set and of its mark: in the slot of its keys, and where no purge matches them."""
    rest = f"{keys.tenant_prefix(tenant).removeprefix(keys.PREFIX)}{hashlib.sha256(store_id.encode()).hexdigest()[:24]}"
    return [f"rag:tags:{rest}", f"rag:erased:{rest}"]
