"""Which limits apply to whom, and where they are counted."""

from __future__ import annotations

import pytest

from ragagent.config import Limits
from ragagent.engine.limiting.policies import policies
from ragagent.limits.gcra import MINUTE, SECOND
from ragagent.types import Allowance, Caller

ALL = Limits(
    requests_per_minute=60,
    tokens_per_minute=1000,
    concurrent_answers=4,
    tenant_requests_per_minute=600,
    tenant_tokens_per_minute=10_000,
    tenant_concurrent_answers=40,
)


def shown(caller: Caller, limits: Limits = ALL, **kind: bool) -> list[tuple[str, int]]:
    return [(policy.name, policy.limit) for policy in policies(caller, limits, **kind)]


def test_without_limits_there_is_no_policy() -> None:
    assert not policies(Caller(), Limits())
    assert not policies(Caller(key_id="k", allowance=Allowance(0, 0, 0)), Limits(requests_per_minute=1))


def test_a_caller_has_those_of_its_key_and_those_of_its_tenant() -> None:
    assert shown(Caller(key_id="k")) == [
        ("requests", 60),
        ("tokens", 1000),
        ("tenant-requests", 600),
        ("tenant-tokens", 10_000),
        ("answers", 4),
        ("tenant-answers", 40),
    ]


def test_a_keys_own_stands_in_for_the_general_one_and_not_for_the_tenants() -> None:
    own = Caller(key_id="k", allowance=Allowance(7, 0, None))
    assert shown(own) == [
        ("requests", 7),
        ("tenant-requests", 600),
        ("tenant-tokens", 10_000),
        ("answers", 4),
        ("tenant-answers", 40),
    ]


def test_a_request_meets_only_what_it_takes() -> None:
    assert shown(Caller(), has_tokens=False, is_answer=False) == [("requests", 60), ("tenant-requests", 600)]
    assert "answers" not in dict(shown(Caller(), is_answer=False))


def test_keys_share_their_tenants_count_and_nothing_else() -> None:
    def keys(caller: Caller) -> list[str]:
        return [policy.key for policy in policies(caller, ALL)]

    one, other, stranger = keys(Caller("a", "1")), keys(Caller("a", "2")), keys(Caller("b", "1"))
    assert len({*one, *other}) == 9
    assert not {*one} & {*stranger}
    assert len({key.partition("}")[0] for key in [*one, *other]}) == 1, "a cluster finds them in one slot"
    assert all(key.startswith("rag:l:{") for key in [*one, *stranger])
    assert not {*keys(Caller("a"))} & ({*one, *other} - {key for key in one if key in other})


@pytest.mark.parametrize("tenant", ["", "}{", "a:b", "手册", "x" * 1000, "\ud800"])
def test_a_tenant_may_be_called_anything(tenant: str) -> None:
    assert all(key.isascii() and len(key) < 80 for key in (policy.key for policy in policies(Caller(tenant), ALL)))


@pytest.mark.parametrize(("seconds", "capacity"), [(60, MINUTE), (10, 10 * SECOND), (0, SECOND)])
def test_a_burst_is_so_many_seconds_of_the_rate_and_one_request_at_least(seconds: float, capacity: int) -> None:
    (policy,) = policies(Caller(), Limits(requests_per_minute=60, burst_seconds=seconds))
    assert policy.rate.capacity == capacity
