"""What one request has taken from its caller's limits, or why it got nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ragagent.engine.limiting.policies import Policies, Policy
from ragagent.errors import Limited
from ragagent.limits.gcra import SECOND, Seat

SEAT_SECONDS = 1.0  # nobody knows when an answer ends: what a caller with too many of them is asked to wait


@dataclass(frozen=True, slots=True)
class Standing:
    """How a caller stands under one policy: what is left, and in how many seconds all of it is there again.

    Seats have no such time: 0.
    """

    policy: Policy
    remaining: int
    reset_seconds: float = 0.0


@dataclass(slots=True)
class Grant:
    """What a request holds until it is settled. `costs` are microseconds, one for each of the policies' rates."""

    policies: Policies
    costs: list[int]
    seats: Sequence[Seat] = ()
    standings: list[Standing] = field(default_factory=list)
    is_settled: bool = False

    def note(self, policies: Sequence[Policy], levels: Sequence[int]) -> None:
        """Take the levels of some of the rates down; there are none where nothing was counted."""
        now = {policy.name: standing(policy, level) for policy, level in zip(policies, levels, strict=False)}
        self.standings = [now.get(found.policy.name, found) for found in self.standings]


class Refused(Limited):
    """A limit does not let the request through. `retry_after` None: it never will, for it asks for too much at once."""

    def __init__(self, message: str, policy: Policy, retry_after: float | None, standings: Sequence[Standing]) -> None:
        super().__init__(message, retry_after=retry_after)
        self.policy = policy
        self.standings = standings


def standing(policy: Policy, level: int) -> Standing:
    return Standing(policy, policy.rate.remaining(level), level / SECOND)


def seats_standing(policy: Policy, held: int) -> Standing:
    return Standing(policy, max(policy.limit - held, 0))


def refusal(policies: Policies, costs: Sequence[int], levels: Sequence[int], held: Sequence[int]) -> Refused:
    """Say which policy refused, and in what time the request would get through; of several, the one that takes longest.

    `levels` and `held` are what the request found.
    """
    waits: list[tuple[float, Policy]] = [
        ((policy.rate.wait(level, cost) or 0) / SECOND, policy)
        for policy, cost, level in zip(policies.rates, costs, levels, strict=True)
    ]
    waits += [
        (SEAT_SECONDS if count >= policy.limit else 0.0, policy)
        for policy, count in zip(policies.seats, held, strict=True)
    ]
    seconds, policy = max(waits, key=lambda pair: pair[0])
    standings = [standing(policy, level) for policy, level in zip(policies.rates, levels, strict=True)]
    standings += [seats_standing(policy, count) for policy, count in zip(policies.seats, held, strict=True)]
    message = f"Rate limit reached for {_described(policy)}. Try again in {_shown(seconds)} s."
    return Refused(message, policy, seconds, standings)


def too_much(policy: Policy, units: int, standings: Sequence[Standing]) -> Refused:
    """Say that waiting does not help."""
    return Refused(
        f"The request is too large for {_described(policy)}: it may come to {units} {policy.unit}, and "
        f"{policy.rate.units_at_once} may be used at once. Make the prompt or max_tokens smaller.",
        policy,
        None,
        standings,
    )


def _described(policy: Policy) -> str:
    whose = "this tenant" if policy.name.startswith("tenant-") else "this API key"
    how = "under way at a time" if policy.unit == "answers" else "per minute"
    return f"{whose} (policy '{policy.name}': {policy.limit} {policy.unit} {how})"


def _shown(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds < 10 else f"{seconds:.0f}"
