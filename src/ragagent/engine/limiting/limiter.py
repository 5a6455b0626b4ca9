"""Whether a request may be answered now, by what its caller has asked for lately, and what it costs in the end.

`admit` takes a request, an estimate of its tokens and a place among the answers under way, all or nothing, in one
round trip. `settle` makes of the estimate what was really read and generated, and gives the place up. A worker that is
killed in between settles nothing: then the estimate stands, and the place comes back when its lease ends.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from ragagent.config import Limits
from ragagent.engine.limiting.grant import Grant, refusal, seats_standing, standing, too_much
from ragagent.engine.limiting.policies import Policies, Policy, policies
from ragagent.limits.gcra import Demand, Seat
from ragagent.limits.ledger import RENEW_SECONDS, Ledger
from ragagent.types import Caller

log = logging.getLogger(__name__)


class Limiter:
    """The limits of all callers of this worker. `on_refused(policy)` hears of each request that was not let through."""

    def __init__(
        self, settings: Limits, ledger: Ledger, on_refused: Callable[[str], None] = lambda policy: None
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._on_refused = on_refused
        self._seated: dict[str, Grant] = {}  # by holder: whose leases are to be renewed
        self._keeper: asyncio.Task[None] | None = None
        self._settling: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Settle what has begun to be settled, and close the ledger."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._settling:
            await asyncio.wait(self._settling)
        self._ledger.close()

    async def admit(self, caller: Caller, tokens: int | None = None, *, is_answer: bool = False) -> Grant | None:
        """Take what the request needs; None: nothing limits it. Raises Refused, and then it has taken nothing.

        `tokens` is an estimate; None: no model works for the request. An estimate larger than what may ever come at
        once takes all of that: `expect` refuses what is known to be too much.
        """
        applying = policies(caller, self._settings, has_tokens=tokens is not None, is_answer=is_answer)
        if not applying:
            return None
        costs = [_cost(policy, tokens or 0) for policy in applying.rates]
        holder = secrets.token_hex(8) if applying.seats else ""
        seats = [Seat(policy.key, policy.limit, holder) for policy in applying.seats]
        taken = await self._ledger.take(_demands(applying.rates, costs), seats)
        levels = taken.levels or [0] * len(costs)  # Nothing was counted: Redis is away, or the table's lock.
        held = taken.held or [0] * len(seats)
        if not taken.is_allowed:
            refused = refusal(applying, costs, levels, held)
            self._on_refused(refused.policy.name)
            raise refused
        grant = Grant(applying, costs, seats)
        grant.standings = [
            *(standing(p, level + cost) for p, level, cost in zip(applying.rates, levels, costs, strict=True)),
            *(seats_standing(p, count + 1) for p, count in zip(applying.seats, held, strict=True)),
        ]
        if seats:
            self._seat(holder, grant)
        return grant

    async def expect(self, grant: Grant, tokens: int) -> None:
        """Take more, where the request is now known to need more tokens than were estimated. Raises Refused."""
        at = [n for n, policy in enumerate(grant.policies.rates) if policy.unit == "tokens"]
        for policy in (grant.policies.rates[n] for n in at):
            if policy.rate.wait(0, policy.rate.cost(tokens)) is None:
                self._on_refused(policy.name)
                raise too_much(policy, tokens, grant.standings)
        rates = tuple(grant.policies.rates[n] for n in at)
        needed = [policy.rate.cost(tokens) for policy in rates]
        more = [max(cost - grant.costs[n], 0) for n, cost in zip(at, needed, strict=True)]
        if not any(more):
            return
        taken = await self._ledger.take(_demands(rates, more), ())
        levels = taken.levels or [0] * len(rates)
        if not taken.is_allowed:
            # What it has taken goes back with the refusal, and is not in its own way when it comes again.
            others = [max(level - grant.costs[n], 0) for n, level in zip(at, levels, strict=True)]
            refused = refusal(Policies(rates), needed, others, ())
            self._on_refused(refused.policy.name)
            raise refused
        for n, cost in zip(at, more, strict=True):
            grant.costs[n] += cost
        grant.note(rates, [level + cost for level, cost in zip(levels, more, strict=True)])

    async def settle(self, grant: Grant, tokens: int | None) -> None:
        """Let the request have cost so many tokens, and give its place up. None: what was estimated. Once."""
        costs = [
            cost if tokens is None or policy.unit == "requests" else policy.rate.cost(tokens)
            for policy, cost in zip(grant.policies.rates, grant.costs, strict=True)
        ]
        await self._close(grant, costs)

    async def give_back(self, grant: Grant) -> None:
        """Let the request have cost nothing: it was refused after all."""
        await self._close(grant, [0] * len(grant.costs))

    def later(self, work: asyncio.Task[None]) -> None:
        """Let the work end by itself: a request that was cancelled cannot wait for it."""
        self._settling.add(work)
        work.add_done_callback(self._settling.discard)

    async def _close(self, grant: Grant, costs: list[int]) -> None:
        if grant.is_settled:
            return
        grant.is_settled = True
        for seat in grant.seats:
            self._seated.pop(seat.token, None)
        changed = [n for n, (old, new) in enumerate(zip(grant.costs, costs, strict=True)) if old != new]
        if not changed and not grant.seats:
            return
        rates = [grant.policies.rates[n] for n in changed]
        deltas = [costs[n] - grant.costs[n] for n in changed]
        grant.note(rates, await self._ledger.add(_demands(rates, deltas), grant.seats))

    def _seat(self, holder: str, grant: Grant) -> None:
        self._seated[holder] = grant
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep(), name="lease keeper")

    async def _keep(self) -> None:
        """Renew the leases of all that are under way, while there are any."""
        while self._seated:
            await asyncio.sleep(RENEW_SECONDS)
            for holder, grant in list(self._seated.items()):
                if holder in self._seated:  # It may have ended while the others were renewed.
                    await self._ledger.hold(grant.seats)
                    if grant.is_settled:  # ... or while its own lease was on its way.
                        await self._ledger.add((), grant.seats)


def _cost(policy: Policy, tokens: int) -> int:
    if policy.unit == "requests":
        return policy.rate.cost(1)
    return min(policy.rate.cost(tokens), policy.rate.capacity)


def _demands(rates: tuple[Policy, ...] | list[Policy], costs: list[int]) -> list[Demand]:
    return [Demand(policy.key, cost, policy.rate.capacity) for policy, cost in zip(rates, costs, strict=True)]
