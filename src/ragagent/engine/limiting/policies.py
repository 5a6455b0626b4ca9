"""What a caller may do: a policy for each limit that applies, of its key and of its tenant.

A key's own limit, where it has one, stands in for the configuration's; 0 is none. Callers without a key are one key of
their tenant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ragagent.config import Limits
from ragagent.limits.gcra import SECOND, Rate
from ragagent.types import Caller

Unit = Literal["requests", "tokens", "answers"]

PREFIX = "rag:l:"  # apart from the cache's, so that no purge matches it
ANONYMOUS = "-"


@dataclass(frozen=True, slots=True)
class Policy:
    """One limit of one caller. `name` is what headers, messages and metrics call it; `key` is where it is counted.

    Of requests and tokens `limit` is a rate, per minute; of answers it is how many may be under way.
    """

    name: str
    unit: Unit
    limit: int
    key: str
    rate: Rate


@dataclass(frozen=True, slots=True)
class Policies:
    rates: tuple[Policy, ...] = ()
    seats: tuple[Policy, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rates or self.seats)

    def __iter__(self) -> Iterator[Policy]:
        yield from self.rates
        yield from self.seats


@lru_cache(maxsize=4096)
def policies(caller: Caller, limits: Limits, *, has_tokens: bool = True, is_answer: bool = True) -> Policies:
    """Return what limits a request of this caller, its key's policies before its tenant's.

    A request without tokens needs none of them, and one that makes no answer no place.
    """
    own = caller.allowance
    tag = hashlib.sha256(caller.tenant.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    key, tenant = f"{PREFIX}{{{tag}}}:{caller.key_id or ANONYMOUS}:", f"{PREFIX}{{{tag}}}:"
    found = [
        _policy("requests", "requests", own.requests_per_minute, limits.requests_per_minute, key, limits),
        _policy("tokens", "tokens", own.tokens_per_minute, limits.tokens_per_minute, key, limits),
        _policy("answers", "answers", own.concurrent_answers, limits.concurrent_answers, key, limits),
        _policy("tenant-requests", "requests", None, limits.tenant_requests_per_minute, tenant, limits),
        _policy("tenant-tokens", "tokens", None, limits.tenant_tokens_per_minute, tenant, limits),
        _policy("tenant-answers", "answers", None, limits.tenant_concurrent_answers, tenant, limits),
    ]
    applying = [policy for policy in found if policy.limit]
    return Policies(
        tuple(p for p in applying if p.unit == "requests" or (p.unit == "tokens" and has_tokens)),
        tuple(p for p in applying if p.unit == "answers" and is_answer),
    )


def _policy(name: str, unit: Unit, own: int | None, general: int, prefix: str, limits: Limits) -> Policy:
    limit = general if own is None else own
    return Policy(name, unit, limit, f"{prefix}{unit}", Rate(max(limit, 1), int(limits.burst_seconds * SECOND)))
