"""What telemetry hears of the connection to Redis. Off, each of these costs next to nothing."""

from __future__ import annotations

from typing import Final

from ragagent import names, telemetry

POOL: Final = {names.DB_POOL: "redis"}


def connected() -> None:
    telemetry.count(names.REDIS_CONNECTS, attributes=POOL)


def waited(seconds: float, *, in_vain: bool) -> None:
    """A command waited for a free connection."""
    telemetry.record(names.REDIS_WAIT, seconds, POOL)
    if in_vain:
        telemetry.count(names.REDIS_TIMEOUTS, attributes=POOL)


def ended(command: str, seconds: float, error: BaseException | None = None) -> None:
    attributes = {names.DB_SYSTEM: "redis", names.DB_OPERATION: command.upper()}
    if error is not None:
        attributes[names.ERROR_TYPE] = telemetry.error_type(error)
    telemetry.record(names.REDIS_DURATION, seconds, attributes)


def without(reason: str, callers: int) -> None:
    telemetry.count(names.REDIS_NO_REPLIES, callers, {names.REDIS_NO_REPLY: reason})
