"""`ragagent scale`: another number of workers, until the next reload."""

from __future__ import annotations

import click

from ragagent.cli.control import done
from ragagent.cli.data_directory import with_data
from ragagent.cli.output import Output, reporting
from ragagent.config import Data


@click.command()
@click.argument("workers", type=click.IntRange(min=1))
@reporting
@with_data
def scale(workers: int, out: Output, data: Data) -> None:
    """Run another number of WORKERS, dropping no request.

    Waits until there are so many. The configuration is not changed: the next reload goes by it again.
    """
    reply = done(data, "scale", timeout=None, workers=workers)
    if out.as_json:
        out.document(reply)
    else:
        out.line(f"Workers: {reply['workers']}.")
