"""What a request takes when it comes, and what it has cost when it is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from ragagent.config import Limits
from ragagent.engine.limiting import limiter as module
from ragagent.engine.limiting.grant import Grant, Refused
from ragagent.engine.limiting.limiter import Limiter
from ragagent.limits import ledger as ledger_module
from ragagent.limits.ledger import Ledger
from ragagent.types import Allowance, Caller

pytestmark = pytest.mark.anyio

CALLER = Caller(key_id="k")
Opened = Callable[..., AbstractAsyncContextManager[Limiter]]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    @asynccontextmanager
    async def opened(refused: list[str] | None = None, **limits: int) -> AsyncIterator[Limiter]:
        on_refused = (refused if refused is not None else []).append
        limiter = Limiter(Limits(**limits), Ledger(tmp_path / "limits", None), on_refused)  # type: ignore[arg-type]
        yield limiter
        await limiter.aclose()

    return opened


def left(grant: Grant | None) -> dict[str, int]:
    assert grant is not None
    return {found.policy.name: found.remaining for found in grant.standings}


async def admitted(limiter: Limiter, tokens: int | None = None, *, is_answer: bool = False) -> Grant:
    grant = await limiter.admit(CALLER, tokens, is_answer=is_answer)
    assert grant is not None
    return grant


async def test_who_is_not_limited_costs_nothing(opened: Opened, tmp_path: Path) -> None:
    async with opened(tokens_per_minute=100) as limiter:
        assert await limiter.admit(CALLER) is None, "no tokens are taken"
        unlimited = Caller(key_id="u", allowance=Allowance(tokens_per_minute=0))
        assert await limiter.admit(unlimited, 10**9, is_answer=True) is None
    assert not (tmp_path / "limits").exists()


async def test_requests_are_taken_until_there_are_none(opened: Opened) -> None:
    refused: list[str] = []
    async with opened(refused, requests_per_minute=2, tenant_requests_per_minute=3) as limiter:
        assert left(await limiter.admit(CALLER)) == {"requests": 1, "tenant-requests": 2}
        await limiter.admit(CALLER)
        with pytest.raises(Refused) as caught:
            await limiter.admit(CALLER)
        assert caught.value.retry_after == pytest.approx(30, abs=1)
        other = Caller(key_id="other")
        assert left(await limiter.admit(other)) == {"requests": 1, "tenant-requests": 0}, "the refused took nothing"
        with pytest.raises(Refused):
            await limiter.admit(other)
        assert refused == ["requests", "tenant-requests"]


async def test_tokens_are_estimated_and_then_settled(opened: Opened) -> None:
    async with opened(tokens_per_minute=1000) as limiter:
        grant = await admitted(limiter, 400)
        assert left(grant) == {"tokens": 600}
        await limiter.settle(grant, 100)
        assert left(grant) == {"tokens": 900}
        await limiter.settle(grant, 900)
        assert left(await limiter.admit(CALLER, 0)) == {"tokens": 900}, "only once"
        longer = await admitted(limiter, 100)
        await limiter.settle(longer, 2000)
        assert left(longer) == {"tokens": 0}
        with pytest.raises(Refused) as caught:
            await limiter.admit(CALLER, 1)
        assert caught.value.retry_after == pytest.approx(66, abs=2), "1,100 more than there were"


async def test_what_nobody_settles_has_cost_what_was_estimated(opened: Opened) -> None:
    async with opened(tokens_per_minute=1000) as limiter:
        await limiter.settle(await admitted(limiter, 400), None)
        assert left(await limiter.admit(CALLER, 0)) == {"tokens": 600}


async def test_an_estimate_beyond_the_burst_takes_all_of_it(opened: Opened) -> None:
    async with opened(tokens_per_minute=1000) as limiter:
        grant = await admitted(limiter, 5000)
        assert left(grant) == {"tokens": 0}
        await limiter.settle(grant, 100)
        assert left(grant) == {"tokens": 900}


async def test_a_request_may_turn_out_to_need_more(opened: Opened) -> None:
    refused: list[str] = []
    async with opened(refused, tokens_per_minute=1000, requests_per_minute=10) as limiter:
        grant = await admitted(limiter, 100)
        await limiter.expect(grant, 50)
        await limiter.expect(grant, 600)
        assert left(grant) == {"requests": 9, "tokens": 400}
        assert left(await limiter.admit(CALLER, 0)) == {"requests": 8, "tokens": 400}
        other = await admitted(limiter, 300)
        with pytest.raises(Refused) as caught:
            await limiter.expect(other, 500)
        assert caught.value.retry_after == pytest.approx(6, abs=1), "for 100: what it holds goes back"
        await limiter.give_back(other)
        assert left(await limiter.admit(CALLER, 0)) == {"requests": 7, "tokens": 400}
        with pytest.raises(Refused) as caught:
            await limiter.expect(grant, 1001)
        assert caught.value.retry_after is None
        assert refused == ["tokens", "tokens"]


async def test_answers_hold_their_place_until_they_are_settled(opened: Opened) -> None:
    async with opened(concurrent_answers=2) as limiter:
        one = await admitted(limiter, 0, is_answer=True)
        other = await admitted(limiter, 0, is_answer=True)
        assert left(other) == {"answers": 0}
        with pytest.raises(Refused) as caught:
            await limiter.admit(CALLER, 0, is_answer=True)
        assert caught.value.policy.name == "answers"
        assert await limiter.admit(CALLER, 0) is None, "no answer"
        await limiter.settle(one, None)
        await limiter.give_back(other)
        assert left(await limiter.admit(CALLER, 0, is_answer=True)) == {"answers": 1}


async def test_a_place_is_held_as_long_as_its_answer_takes(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_LEASE", 200_000)
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.05)
    async with opened(concurrent_answers=1) as limiter:
        grant = await admitted(limiter, 0, is_answer=True)
        await asyncio.sleep(0.5)
        with pytest.raises(Refused):
            await limiter.admit(CALLER, 0, is_answer=True)
        await limiter.settle(grant, None)
        abandoned = await admitted(limiter, 0, is_answer=True)
        assert limiter._keeper is not None
        limiter._keeper.cancel()  # as with a worker that is killed
        with contextlib.suppress(asyncio.CancelledError):
            await limiter._keeper
        await asyncio.sleep(0.3)
        assert left(await limiter.admit(CALLER, 0, is_answer=True)) == {"answers": 0}
        await limiter.settle(abandoned, None)


async def test_closing_waits_for_what_is_being_settled(opened: Opened, tmp_path: Path) -> None:
    async with opened(tokens_per_minute=1000) as limiter:
        grant = await admitted(limiter, 400)
        limiter.later(asyncio.create_task(limiter.settle(grant, 100)))
    async with opened(tokens_per_minute=1000) as limiter:
        assert left(await limiter.admit(CALLER, 0)) == {"tokens": 900}
