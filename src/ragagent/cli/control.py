"""A command to the supervisor over its control socket, and what became of it."""

from __future__ import annotations

from typing import Any

from ragagent.config import Data
from ragagent.errors import RagagentError, Unavailable
from ragagent.supervisor import control

ANSWER_SECONDS = 10.0  # for what the supervisor answers at once


def asked(data: Data, command: str, timeout: float | None = ANSWER_SECONDS, **arguments: Any) -> dict[str, Any]:
    """Return the supervisor's reply. Raises Unavailable, saying how to start one."""
    try:
        return control.request(data.path, command, timeout, **arguments)
    except Unavailable as exc:
        hint = "Start it with 'ragagent serve', or name its directory with --data or --config."
        raise Unavailable(f"{exc.message} {hint}") from exc
    except ValueError as exc:
        raise Unavailable(f"The supervisor of '{data.path}' ended amid its answer to '{command}'.") from exc


def done(data: Data, command: str, timeout: float | None = ANSWER_SECONDS, **arguments: Any) -> dict[str, Any]:
    """Return the supervisor's reply when it has done the command; raises with its reason when it has not."""
    reply = asked(data, command, timeout, **arguments)
    if not reply["ok"]:
        raise RagagentError(reply["reason"])
    return reply
