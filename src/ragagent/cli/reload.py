"""`ragagent reload`: the same as SIGHUP, with the outcome told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from ragagent.cli.control import asked
from ragagent.cli.data_directory import with_data
from ragagent.cli.output import Output, flat, reporting
from ragagent.config import Data
from ragagent.errors import RagagentError

_TAKEN = {
    "hot": "hot: no process needed it",
    "rolls": "rolled: workers were replaced",
    "restart": "needs a restart: only a new supervisor takes it",
}
_LEFT = {
    "hot": "hot, but not taken",
    "rolls": "rolls, but not taken",
    "restart": "needs a restart: only a new supervisor takes it",
}


@click.command()
@reporting
@with_data
def reload(out: Output, data: Data) -> None:
    """Load config and code anew, dropping no request.

    Waits for the end. When the new release cannot start, the old one keeps serving, and this exits with 1 and the
    reason.
    """
    # No timeout: a reload ends when the last old worker has finished what it holds, and the supervisor bounds that.
    reply = asked(data, "reload", timeout=None)
    if not out.as_json:
        for line in _lines(reply):
            out.line(line)
    if not reply["ok"]:
        raise RagagentError(f"The reload failed, and the old release keeps serving: {reply['reason']}")
    if out.as_json:
        out.document(reply)


def _lines(reply: Mapping[str, Any]) -> Iterator[str]:
    """Say what serves, and what became of each key that differs; of a failed reload only the latter."""
    changes, meaning = dict(reply.get("changes") or {}), _TAKEN if reply["ok"] else _LEFT
    if reply["ok"]:
        yield f"Release {reply['release']} serves."
        if not changes:
            yield "  No config key has changed; the code was loaded anew."
    for key, kind in sorted(changes.items()):
        yield f"  {flat(key):<32} {meaning.get(kind, kind)}"
