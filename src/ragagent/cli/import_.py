"""`ragagent import`: the JSON lines of an export into a data directory, whether a server runs on it or not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import click

from ragagent.cli.data_directory import with_settings
from ragagent.cli.output import Output, clean, reporting
from ragagent.cli.progress import progress
from ragagent.config import Config
from ragagent.engine.keeping.transfer import intake
from ragagent.errors import Invalid, NotFound

EXIT_FAILED = 1
MAX_LINE = 512 * 1024 * 1024  # bytes; a file of the largest size that is taken by default has 34 million in base64


@click.command("import")
@click.argument("source", metavar="FILE|-")
@click.option("--store", "into", metavar="NAME", help="Into this store, made if there is none, instead of its own.")
@reporting
@with_settings
def import_(source: str, into: str | None, out: Output, settings: Config) -> None:
    """Read what 'ragagent export' wrote, as often as you like.

    What is there already is skipped, so an import that was interrupted is run again. Vectors are taken over where the
    store has the model that made them; other documents are queued, and the server's indexer embeds them. A document
    with a wrong line is left out as a whole.

    Exit code 1: a line was wrong; stderr says which and why. All others are in.
    """
    with _opened(source) as file, progress("import", _size(file), quiet=out.as_json) as advance:
        report = intake.take_in(settings, _lines(file, advance), into)
    for number, reason in report.failures:
        click.echo(clean(f"Line {number}: {reason.removesuffix('.')}."), err=True)
    if out.as_json:
        out.document(
            {
                "object": "ragagent.import",
                "stores": report.stores,
                "added": report.added,
                "queued": report.queued,
                "unchanged": report.unchanged,
                "failed": report.failed,
                "failures": [{"line": number, "reason": reason} for number, reason in report.failures],
            }
        )
    else:
        out.line(
            f"{report.stores} stores made; {report.added} documents added, {report.queued} queued, "
            f"{report.unchanged} unchanged, {report.failed} failed."
        )
    if report.failed:
        click.get_current_context().exit(EXIT_FAILED)


@contextmanager
def _opened(source: str) -> Iterator[IO[bytes]]:
    if source == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(source, "rb")  # noqa: SIM115  The block below closes it.
    except OSError as exc:
        raise NotFound(f"'{source}' cannot be read: {exc.strerror}.") from exc
    with file:
        yield file


def _size(file: IO[bytes]) -> int:
    try:
        return os.fstat(file.fileno()).st_size
    except OSError:
        return 0  # A pipe, or what a test has in its place.


def _lines(file: IO[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise Invalid(f"A line has more than {MAX_LINE} bytes.")
        advance(len(line))
        yield line
