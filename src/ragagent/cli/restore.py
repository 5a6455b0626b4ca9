"""`ragagent restore`: a backup into a new data directory, or only checked."""

from __future__ import annotations

from pathlib import Path

import click

from ragagent.cli.orderly import orderly
from ragagent.cli.output import Output, moment, reporting, size
from ragagent.cli.progress import progress
from ragagent.config import Data
from ragagent.engine.keeping import restore as restores


@click.command()
@click.argument("archive", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--data", "directory", type=click.Path(file_okay=False), metavar="DIR", help="A new or empty directory.")
@click.option("--verify", is_flag=True, help="Only check the backup; change nothing.")
@reporting
def restore(archive: Path, directory: str | None, verify: bool, out: Output) -> None:
    """Check a backup and put it into a new data directory.

    Everything is read and checked before anything is put in place. Nothing is overwritten: a directory with data, or
    with a server running on it, is refused. Then start the server there, with the configuration of before.

    Exit code 1: the backup is not whole, or the directory cannot take it; nothing was changed.
    """
    if verify == (directory is not None):
        raise click.UsageError("Name either --data DIR, to restore there, or --verify.")
    with orderly(), progress("verify" if verify else "restore", _bytes(archive), quiet=out.as_json) as advance:
        if directory is None:
            listing = restores.verify(archive, advance)
        else:
            listing = restores.restore(archive, Data(dir=directory), advance).listing
    if out.as_json:
        out.document({"object": "ragagent.restore", "path": str(archive), "directory": directory, **listing.summary()})
        return
    made = f"of {moment(listing.created_at)}, by RAGAgent {listing.ragagent}"
    told = f"{made}, {size(listing.bytes)}, up to write {listing.seq}"
    if directory is None:
        out.line(f"The backup is whole: {told}.")
    else:
        out.line(f"Restored to '{directory}': the backup {told}.")


def _bytes(archive: Path) -> int:
    """Return about how much there is to read: a backup of vectors shrinks to half."""
    return 2 * archive.stat().st_size if archive.is_file() else 0
