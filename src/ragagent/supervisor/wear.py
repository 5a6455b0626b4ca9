"""When a worker has served enough: after so many requests, so much memory, so much time, or because somebody asks.

A worker has limits of its own, lower than the configured ones by a random share, so that workers that started together
do not end together.
"""

from __future__ import annotations

from ragagent.config import MIB
from ragagent.supervisor.member import Member, State

WEIGH_SECONDS = 5.0
WEIGHINGS = 3  # in a row above the limit: one large request is no leak


def worn(member: Member, now: float) -> str:
    """Return why this worker is to be replaced; empty: it is not."""
    limits, wear = member.release.limits.recycle, member.wear
    if member.role != "worker" or member.state is not State.RUNNING or member.running_at is None:
        return ""
    served = now - member.running_at
    if wear.asked:
        return "its replacement was asked for"
    if limits.requests and wear.requests >= limits.requests * wear.share:
        return f"it has answered {wear.requests} requests"
    if limits.lifetime_seconds and served >= limits.lifetime_seconds * wear.share:
        return f"it has served for {served:.0f} s"
    if wear.overweight >= WEIGHINGS and wear.pss_bytes is not None:
        return f"it takes {wear.pss_bytes / MIB:.0f} MiB of memory"
    return ""


def is_to_be_weighed(member: Member, now: float) -> bool:
    limit = member.release.limits.recycle.pss_bytes
    return bool(limit) and member.role == "worker" and member.state is State.RUNNING and now >= member.wear.weigh_due


def weigh(member: Member, pss_bytes: int | None, now: float) -> None:
    """Note a weighing; None: the process could not be asked, which says nothing."""
    wear, limit = member.wear, member.release.limits.recycle.pss_bytes * member.wear.share
    wear.weigh_due = now + WEIGH_SECONDS
    if pss_bytes is not None:
        wear.pss_bytes = pss_bytes
        wear.overweight = wear.overweight + 1 if pss_bytes > limit else 0
