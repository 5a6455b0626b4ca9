"""`ragagent recycle`: fresh workers of the same release, as a worker's own limits would have it."""

from __future__ import annotations

import click

from ragagent.cli.control import done
from ragagent.cli.data_directory import with_data
from ragagent.cli.output import Output, reporting
from ragagent.config import Data


@click.command()
@click.argument("slot", type=click.IntRange(min=0), required=False)
@reporting
@with_data
def recycle(slot: int | None, out: Output, data: Data) -> None:
    """Replace the worker of a SLOT, or all, one at a time.

    The successor is ready before a worker leaves, so no request is lost. Waits until the last one is replaced.
    """
    reply = done(data, "recycle", timeout=None, slot=slot)
    if out.as_json:
        out.document(reply)
        return
    replaced = ", ".join(f"worker {number}" for number in reply["slots"])
    out.line(f"Replaced: {replaced or 'none'}.")
