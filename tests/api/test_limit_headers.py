"""What clients read of their limits, to the letter."""

from __future__ import annotations

import pytest

from ragagent.api import limit_headers
from ragagent.config import Limits
from ragagent.engine.limiting.grant import Standing, refusal, standing, too_much
from ragagent.engine.limiting.policies import policies
from ragagent.limits.gcra import MINUTE, SECOND
from ragagent.types import Caller

LIMITS = Limits(
    requests_per_minute=60, tenant_requests_per_minute=100, tokens_per_minute=6000, tenant_concurrent_answers=4
)
FOUND = policies(Caller(), LIMITS)
REQUESTS, TOKENS, TENANT_REQUESTS = FOUND.rates
ANSWERS = FOUND.seats[0]


def test_every_policy_that_applied_is_named() -> None:
    standings = [
        standing(REQUESTS, 10 * SECOND + 1),
        standing(TOKENS, 0),
        standing(TENANT_REQUESTS, 57 * SECOND),
        Standing(ANSWERS, 3),
    ]
    assert dict(limit_headers.of(standings)) == {
        b"ratelimit-policy": b'"requests";q=60;w=60, "tokens";q=6000;w=60, "tenant-requests";q=100;w=60, '
        b'"tenant-answers";q=4;qu="concurrent-requests"',
        b"ratelimit": b'"requests";r=49;t=11, "tokens";r=6000;t=0, "tenant-requests";r=5;t=57, "tenant-answers";r=3',
        b"x-ratelimit-limit-requests": b"100",
        b"x-ratelimit-remaining-requests": b"5",
        b"x-ratelimit-reset-requests": b"57s",
        b"x-ratelimit-limit-tokens": b"6000",
        b"x-ratelimit-remaining-tokens": b"6000",
        b"x-ratelimit-reset-tokens": b"0ms",
    }


def test_a_refusal_says_when_to_come_back_to_the_millisecond() -> None:
    refused = refusal(policies(Caller(), Limits(requests_per_minute=60)), [SECOND], [MINUTE - SECOND + 1234], ())
    found = dict(limit_headers.of_refusal(refused))
    assert found[b"retry-after-ms"] == b"2"
    assert b"x-should-retry" not in found


def test_a_refusal_for_good_is_not_tried_again() -> None:
    found = dict(limit_headers.of_refusal(too_much(TOKENS, 9000, [standing(TOKENS, 0)])))
    assert found[b"x-should-retry"] == b"false"
    assert b"retry-after-ms" not in found
    assert found[b"ratelimit"] == b'"tokens";r=6000;t=0'


def test_browsers_may_read_all_of_them() -> None:
    refused = refusal(FOUND, [SECOND, 0, 0], [MINUTE, 0, 0], [0])
    sent = {name.decode() for name, _ in (*limit_headers.of_refusal(refused),)}
    assert sent == set(limit_headers.NAMES)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.0001, "1ms"),
        (0.12, "120ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (1.23456, "1.235s"),
        (59.5, "59.5s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (361.2, "6m2s"),
        (3600, "1h0m0s"),
        (86_400, "24h0m0s"),
    ],
)
def test_times_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert limit_headers.duration(seconds) == text
