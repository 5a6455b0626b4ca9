"""What a refusal says, and in what time the same request would get through."""

from __future__ import annotations

from ragagent.config import Limits
from ragagent.engine.limiting.grant import refusal, seats_standing, standing, too_much
from ragagent.engine.limiting.policies import policies
from ragagent.limits.gcra import MINUTE, SECOND
from ragagent.types import Caller

LIMITS = Limits(requests_per_minute=60, tenant_requests_per_minute=600, concurrent_answers=4)
FOUND = policies(Caller(key_id="k"), LIMITS)
KEY, TENANT = FOUND.rates
ANSWERS = FOUND.seats[0]


def test_what_is_left_and_when_all_of_it_is_there_again() -> None:
    half = standing(KEY, 30 * SECOND)
    assert (half.remaining, half.reset_seconds) == (30, 30)
    assert standing(KEY, 2 * MINUTE).remaining == 0, "in debt"
    assert [seats_standing(ANSWERS, held).remaining for held in (0, 3, 4, 9)] == [4, 1, 0, 0]


def test_it_names_the_policy_that_takes_longest() -> None:
    refused = refusal(FOUND, [SECOND, SECOND // 10], [MINUTE, MINUTE + 5 * SECOND], [4])
    assert refused.policy is TENANT
    assert refused.retry_after == 5.1
    assert refused.message == (
        "Rate limit reached for this tenant (policy 'tenant-requests': 600 requests per minute). Try again in 5.1 s."
    )
    assert [(found.policy.name, found.remaining) for found in refused.standings] == [
        ("requests", 0),
        ("tenant-requests", 0),
        ("answers", 0),
    ]


def test_for_a_place_one_waits_a_moment() -> None:
    refused = refusal(FOUND, [SECOND, SECOND // 10], [0, 0], [4])
    assert (refused.policy, refused.retry_after) == (ANSWERS, 1.0)
    assert "this API key (policy 'answers': 4 answers under way at a time)" in refused.message


def test_what_is_too_much_will_never_get_through() -> None:
    (policy,) = policies(Caller(), Limits(tokens_per_minute=600, burst_seconds=10)).rates
    refused = too_much(policy, 5000, ())
    assert refused.retry_after is None
    assert refused.message == (
        "The request is too large for this API key (policy 'tokens': 600 tokens per minute): it may come to 5000 "
        "tokens, and 100 may be used at once. Make the prompt or max_tokens smaller."
    )
