"""The limits that all hosts share, in Redis: one script, and so one round trip, for all that a request takes.

The clock is the server's: hosts whose clocks differ get the same verdicts. A rate is one number under its key, the
microsecond at which its level has run out, and expires then. Seats are a sorted set of their holders by the end of
their leases, so what a killed worker held comes back by itself. All keys of a tenant share a slot of a cluster.

With each rate goes the level that the host's own table has for it. It counts where Redis has none (it was restarted
empty), and where the table decided without Redis: so neither Redis' going nor its coming gives a caller a second burst.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ragagent.limits.gcra import MAX_LEVEL, MINUTE, Demand, Seat, Taken
from ragagent.remote.connection import NoReply, Remote

Known = Sequence[tuple[int, bool]]  # for each demand the table's own level, and whether the table decided it

# KEYS: the rates', then the seats'. ARGV: how many rates, the lease, the holder; four numbers for each rate; then the
# limit of each seat. %.0f, since Lua would write such a number as 1.7e+15.
_LEVEL: Final = f"""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local rates, lease, holder = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local function set(i, level)
    level = math.min(level, {MAX_LEVEL})
    redis.call('SET', KEYS[i], string.format('%.0f', now + level), 'PX', math.ceil(math.max(level, {MINUTE}) / 1000))
end
local function level(i)
    local known, is_ours = tonumber(ARGV[4 * i + 2]), ARGV[4 * i + 3] == '1'
    local stored = tonumber(redis.call('GET', KEYS[i]) or '')
    local found = stored and stored - now or 0
    if not (found > 0 and found <= {MAX_LEVEL}) then found = 0 end
    if known > found and (is_ours or not stored) then
        set(i, known)  -- Also where the request is refused: the host takes it for told from now on.
        return known
    end
    return found
end
"""

_TAKE: Final = (
    _LEVEL
    + """
local levels, allowed = {}, 1
for i = 1, rates do
    levels[i] = level(i)
    if levels[i] + tonumber(ARGV[4 * i]) > tonumber(ARGV[4 * i + 1]) then allowed = 0 end
end
for i = rates + 1, #KEYS do
    redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', string.format('%.0f', now))
    levels[i] = redis.call('ZCARD', KEYS[i])
    if levels[i] >= tonumber(ARGV[3 * rates + 3 + i]) then allowed = 0 end
end
if allowed == 1 then
    for i = 1, rates do set(i, levels[i] + tonumber(ARGV[4 * i])) end
    for i = rates + 1, #KEYS do
        redis.call('ZADD', KEYS[i], string.format('%.0f', now + lease), holder)
        redis.call('PEXPIRE', KEYS[i], math.ceil(lease / 1000))
    end
end
table.insert(levels, 1, allowed)
return levels
"""
)

_ADD: Final = (
    _LEVEL
    + """
local levels = {}
for i = 1, rates do
    levels[i] = math.max(level(i) + tonumber(ARGV[4 * i]), 0)
    set(i, levels[i])
end
for i = rates + 1, #KEYS do redis.call('ZREM', KEYS[i], holder) end
return levels
"""
)

# A seat that Redis has lost, or never heard of, is taken as well.
_HOLD: Final = """
local time = redis.call('TIME')
local lease = tonumber(ARGV[1])
for i = 1, #KEYS do
    redis.call('ZADD', KEYS[i], string.format('%.0f', time[1] * 1000000 + time[2] + lease), ARGV[2])
    redis.call('PEXPIRE', KEYS[i], math.ceil(lease / 1000))
end
"""


class Shared:
    """What `Table` is to a host, for all of them. Whatever goes wrong is a NoReply."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def take(self, demands: Sequence[Demand], seats: Sequence[Seat], lease: int, known: Known) -> Taken | NoReply:
        reply = await self._run(_TAKE, demands, seats, lease, known)
        if isinstance(reply, NoReply):
            return reply
        allowed, levels = reply[0], reply[1:]
        return Taken(bool(allowed), levels[: len(demands)], levels[len(demands) :])

    async def add(self, demands: Sequence[Demand], seats: Sequence[Seat], known: Known) -> list[int] | NoReply:
        """Add each cost, which may be below zero, whatever the capacity, and give the seats up; return the levels."""
        reply: list[int] | NoReply = await self._run(_ADD, demands, seats, 0, known)
        return reply

    async def hold(self, seats: Sequence[Seat], lease: int) -> None:
        """Hold the seats, all of one holder, for a lease from now on."""
        await self._remote.run(_HOLD, [seat.key for seat in seats], [lease, seats[0].token])

    async def _run(
        self, script: str, demands: Sequence[Demand], seats: Sequence[Seat], lease: int, known: Known
    ) -> Any:
        arguments: list[str | int] = [len(demands), lease, seats[0].token if seats else ""]
        for demand, (level, is_ours) in zip(demands, known, strict=True):
            arguments += (demand.cost, demand.capacity, level, int(is_ours))
        arguments += (seat.limit for seat in seats)
        keys = [*(demand.key for demand in demands), *(seat.key for seat in seats)]
        return await self._remote.run(script, keys, arguments)
