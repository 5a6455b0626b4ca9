"""What an answer says of its caller's limits, in two tongues.

    RateLimit-Policy: "requests";q=60;w=60, "answers";q=4;qu="concurrent-requests"
    RateLimit: "requests";r=59;t=1, "answers";r=3
        the IETF's draft (httpapi, -10): every policy that applied
    x-ratelimit-{limit,remaining,reset}-{requests,tokens}
        OpenAI's: of each, the policy that has the least left

`t` and `reset` are the time in which all of a burst is there again. A refusal says in `Retry-After` (whole seconds) and
`retry-after-ms`, which the official client prefers, when the same request would get through.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from ragagent.engine.limiting.grant import Refused, Standing

Headers = Iterator[tuple[bytes, bytes]]

NAMES: Final = (
    "retry-after-ms",
    "ratelimit-policy",
    "ratelimit",
    *(f"x-ratelimit-{what}-{unit}" for unit in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
)


def of(standings: Sequence[Standing]) -> Headers:
    yield b"ratelimit-policy", ", ".join(map(_policy, standings)).encode()
    yield b"ratelimit", ", ".join(map(_standing, standings)).encode()
    for unit in ("requests", "tokens"):
        of_unit = [standing for standing in standings if standing.policy.unit == unit]
        if of_unit:
            tightest = min(of_unit, key=lambda standing: standing.remaining)
            yield f"x-ratelimit-limit-{unit}".encode(), b"%d" % tightest.policy.limit
            yield f"x-ratelimit-remaining-{unit}".encode(), b"%d" % tightest.remaining
            yield f"x-ratelimit-reset-{unit}".encode(), duration(tightest.reset_seconds).encode()


def of_refusal(refused: Refused) -> Headers:
    yield from of(refused.standings)
    if refused.retry_after is None:
        yield b"x-should-retry", b"false"
    else:
        yield b"retry-after-ms", b"%d" % math.ceil(refused.retry_after * 1000)


def duration(seconds: float) -> str:
    """Return the time as OpenAI writes it: 120ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{math.ceil(seconds * 1000) / 1000:g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60}m{rest}s"


def _policy(standing: Standing) -> str:
    policy = standing.policy
    if policy.unit == "answers":
        return f'"{policy.name}";q={policy.limit};qu="concurrent-requests"'
    return f'"{policy.name}";q={policy.limit};w=60'


def _standing(standing: Standing) -> str:
    if standing.policy.unit == "answers":
        return f'"{standing.policy.name}";r={standing.remaining}'
    return f'"{standing.policy.name}";r={standing.remaining};t={math.ceil(standing.reset_seconds)}'
