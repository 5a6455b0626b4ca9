"""`ragagent export`: stores as JSON lines, of one moment, whether a server runs on the data directory or not."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from ragagent.cli.data_directory import with_data
from ragagent.cli.orderly import orderly
from ragagent.cli.output import Output, reporting
from ragagent.config import Data
from ragagent.engine.keeping.transfer import export as exports
from ragagent.engine.keeping.transfer.export import Vectors
from ragagent.errors import Unavailable

_BUFFER = 1024 * 1024


@click.command()
@click.option("--jsonl", is_flag=True, help="One JSON object a line: the format, and so far the only one.")
@click.option("--store", "names", multiple=True, metavar="NAME", help="Name or id; repeatable. Default: all.")
@click.option("--vectors", type=click.Choice(["base64", "list"]), default="base64", show_default=True)
@click.option("--no-vectors", is_flag=True, help="Smaller: an import embeds the documents anew.")
@click.option("--out", "target", default="-", show_default=True, metavar="FILE|-", help="Replaced when it is whole.")
@reporting
@with_data
def export(
    jsonl: bool, names: Sequence[str], vectors: Vectors, no_vectors: bool, target: str, out: Output, data: Data
) -> None:
    """Write stores, documents and chunks as JSON lines.

    For other programs, and for another server: 'ragagent import' reads it. It holds documents and no keys. For a copy
    of everything use 'ragagent backup'.
    """
    if target == "-" and out.as_json:
        raise click.UsageError("--json needs --out FILE: stdout is the export's own.")
    with orderly(), _opened(target) as file:
        counts = exports.export(data, file, names, "none" if no_vectors else vectors)
    if out.as_json:
        out.document({"object": "ragagent.export", "path": target, **counts})
    else:
        told = ", ".join(f"{count} {what}" for what, count in counts.items())
        click.echo(f"Exported {told}.", err=True)


@contextmanager
def _opened(target: str) -> Iterator[IO[bytes]]:
    """Open what is written to; a file gets its name when all of it is on disk."""
    try:
        if target == "-":
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
            return
        with _replaced(Path(target)) as file:
            yield file
    except BrokenPipeError:
        raise  # Who reads has seen enough: click's to end quietly.
    except OSError as exc:
        raise Unavailable(f"'{target}' cannot be written: {exc.strerror}.") from exc


@contextmanager
def _replaced(path: Path) -> Iterator[IO[bytes]]:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb", buffering=_BUFFER) as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
