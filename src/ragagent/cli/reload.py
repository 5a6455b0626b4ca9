"""`ragagent reload`: the same as SIGHUP, with the outcome told."""

from __future__ import annotations

import click

from ragagent.cli.data_directory import with_data
from ragagent.cli.output import Output, reporting
from ragagent.cli.status import asked
from ragagent.config import Data, keys
from ragagent.errors import RagagentError

_MEANING = {
    "hot": "hot: no process needed it",
    "rolls": "rolls: workers were replaced",
    "restart": "restart: only a new supervisor takes it",
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
    if not reply["ok"]:
        raise RagagentError(f"The reload failed, and the old release keeps serving: {reply['reason']}")
    if out.as_json:
        out.document(reply)
        return
    out.line(f"Release {reply['release']} serves.")
    for key in reply["changes"]:
        out.line(f"  {key:<32} {_MEANING[_CLASSES.get(key, 'rolls')]}")
    if not reply["changes"]:
        out.line("  No config key has changed; the code was loaded anew.")


_CLASSES = {"profile": "rolls"} | {f"{section}.{key}": item.metadata["reload"] for section, key, item in keys()}
