"""`ragagent backup`: one verified file of a data directory, whether a server runs on it or not."""

from __future__ import annotations

from pathlib import Path

import click

from ragagent.cli.data_directory import with_data
from ragagent.cli.orderly import orderly
from ragagent.cli.output import Output, reporting, size
from ragagent.cli.progress import progress
from ragagent.config import Data
from ragagent.engine.keeping import backup as backups


@click.command()
@click.argument("target", type=click.Path(path_type=Path), metavar="FILE|DIR")
@click.option("--without-index", is_flag=True, help="Smaller: the index is built again after a restore.")
@reporting
@with_data
def backup(target: Path, without_index: bool, out: Output, data: Data) -> None:
    """Write a verified backup, while the server runs or not.

    FILE must not exist; in a directory it gets the time as its name. It holds the database, the keys' pepper and the
    index, so it is a secret like the data directory itself. The configuration is not in it. While it is made, the disk
    needs room for the database once more.

    Exit code 1: there is no backup, and nothing is left of it. A damaged database is found here.
    """
    with orderly(), progress("backup", backups.size(data, with_index=not without_index), quiet=out.as_json) as advance:
        made = backups.create(data, target, with_index=not without_index, advance=advance)
    for store in made.left_out:
        click.echo(f"The index of {store} is damaged and was left out; it is built again after a restore.", err=True)
    if out.as_json:
        out.document(
            {
                "object": "ragagent.backup",
                "path": str(made.path),
                "bytes": made.bytes,
                "left_out": list(made.left_out),
                **made.listing.summary(),
            }
        )
    else:
        out.line(
            f"Backup '{made.path}': {size(made.bytes)} of {size(made.listing.bytes)}, up to write {made.listing.seq}."
        )
