"""`ragagent drain`: stop the server when it has finished what it holds, and see it gone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from ragagent.cli.control import asked, done
from ragagent.cli.data_directory import with_data
from ragagent.cli.output import Output, reporting
from ragagent.config import Data
from ragagent.errors import EXIT_OK, RagagentError, Unavailable

LEAVE_SECONDS = 10.0  # from the supervisor's last word until its socket is gone
_POLL_SECONDS = 0.05


@click.command()
@reporting
@with_data
def drain(out: Output, data: Data) -> None:
    """Finish what is in flight, then stop the server.

    New connections are refused at once. Waits for the end, which server.graceful_seconds bounds.
    """
    found = asked(data, "status")
    if not out.as_json:
        out.line(f"Draining: {_in_flight(found)} in flight.")
    reply = done(data, "drain", timeout=None)
    _see_gone(data, found["supervisor"]["pid"])
    if reply["code"] != EXIT_OK:
        raise RagagentError(f"The server has stopped, with exit code {reply['code']}.")
    if out.as_json:
        out.document(reply)
    else:
        out.line("Everything has finished, and the server has stopped.")


def _in_flight(reply: Mapping[str, Any]) -> str:
    count = sum(entry["stats"].get("in_flight", 0) for entry in reply["workers"])
    return "1 request" if count == 1 else f"{count} requests"


def _see_gone(data: Data, pid: int) -> None:
    """Return when the supervisor `pid` has left its socket, be it to another one that was started at once."""
    deadline = time.monotonic() + LEAVE_SECONDS
    while time.monotonic() < deadline:
        try:
            if asked(data, "status")["supervisor"]["pid"] != pid:
                return
        except Unavailable:
            return
        time.sleep(_POLL_SECONDS)
    raise RagagentError(f"Everything has finished, but the supervisor (pid {pid}) has not left yet.")
