"""`ragagent ingest`: files and directories into a store, again and again, and only what has changed is sent.

Every file, of whatever format, goes the same way: POST /v1/files, then into the store with the attributes that
`shelf.py` knows it by. `/v1/ragagent/documents` would compare and replace texts by itself, but it takes UTF-8 text
only, so that the same directory would go two ways with two kinds of identity, and unchanged files would be sent whole
to be found unchanged. It is the way for `-`: one text from stdin under an id of the caller's.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import click

from ragagent.cli import store
from ragagent.cli.client import Client, Unreachable, with_client
from ragagent.cli.load import load
from ragagent.cli.output import Output, clean, reporting
from ragagent.cli.pairs import PAIR, Pair
from ragagent.cli.selection import SUFFIXES, Selection, select
from ragagent.cli.shelf import Outcome, Result, Shelf
from ragagent.errors import NotFound, RagagentError
from ragagent.types import Attributes

EXIT_FAILED = 1


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH|DIR|-...")
@click.option("--store", "name", default="default", show_default=True, metavar="NAME", help="Made if there is none.")
@click.option("--attribute", "pairs", type=PAIR, multiple=True, metavar="KEY=VALUE", help="For each file; repeatable.")
@click.option("--external-id", metavar="ID", help="For '-': the id that a later text replaces.")
@click.option("--glob", "pattern", metavar="PATTERN", help="Of directories, take what matches: '*.md', 'guide/*.rst'.")
@reporting
@with_client
def ingest(
    paths: Sequence[str],
    name: str,
    pairs: Sequence[Pair],
    external_id: str | None,
    pattern: str | None,
    out: Output,
    client: Client,
) -> None:
    """Load files, directories, or with - one text from stdin.

    Directories are read recursively, without hidden files. A file that is in the store already is skipped, a changed
    one replaces its older version, one that failed is tried again, and a new --attribute is laid over those there are.

    Exit code 1: a file failed; stderr says which and why.
    """
    attributes = _attributes(pairs)
    # Whatever may be wrong with the arguments is found before a store is made for them.
    text = _text(paths, external_id) if "-" in paths else None
    selection = Selection() if text is not None else _selection(paths, pattern, external_id)
    target = store.find(client, name)
    created = target is None
    target = target or store.add(client, name)
    shelf = Shelf(client, target["id"], attributes)
    if text is not None and external_id is not None:
        outcomes = [shelf.put_text(external_id, text)]
    else:
        outcomes = _load(shelf, selection, quiet=out.as_json)
    _report(out, {"id": target["id"], "name": target["name"], "created": created}, outcomes, selection.skipped)


def _attributes(pairs: Sequence[Pair]) -> Attributes:
    attributes = dict(pairs)
    for key in ("path", "sha256"):
        if key in attributes:
            raise click.UsageError(f"The attribute '{key}' is set by ingest itself.")
    return attributes


def _text(paths: Sequence[str], external_id: str | None) -> str:
    if list(paths) != ["-"]:
        raise click.UsageError("'-' stands alone.")
    if not external_id:
        raise click.UsageError("'-' needs --external-id ID, by which a later text replaces this one.")
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as exc:
        raise RagagentError(f"The text on stdin is not UTF-8: {exc.reason} at byte {exc.start}.") from exc


def _selection(paths: Sequence[str], pattern: str | None, external_id: str | None) -> Selection:
    if external_id is not None:
        raise click.UsageError("--external-id belongs to '-'; files are known by their paths.")
    selection = select(paths, pattern)
    if not selection.sources and not selection.unreadable:
        kinds = f"matches '{pattern}'" if pattern else f"ends in {', '.join(sorted(SUFFIXES))}"
        raise NotFound(f"There is nothing to ingest: no file in {', '.join(paths)} {kinds}.")
    return selection


def _load(shelf: Shelf, selection: Selection, *, quiet: bool) -> list[Outcome]:
    """Load what was selected, under a progress bar where a person watches."""
    outcomes = [Outcome(name, "failed", reason) for name, reason in selection.unreadable]
    hidden = quiet or not sys.stderr.isatty()
    with click.progressbar(length=len(selection.sources), label="ingest", hidden=hidden, file=sys.stderr) as bar:
        try:
            shelf.look(selection.sources)
            for outcome in load(shelf, selection.sources.values()):
                outcomes.append(outcome)
                bar.update(1)
        except Unreachable as exc:
            done = f"{bar.pos} of {bar.length} files are done; run it again to go on."
            raise Unreachable(f"{exc.message} {done}") from exc
    return outcomes


def _report(out: Output, target: Mapping[str, Any], outcomes: Sequence[Outcome], skipped: int) -> None:
    failures = [outcome for outcome in outcomes if outcome.result == "failed"]
    for failure in failures:
        click.echo(clean(f"{failure.name}: {failure.reason}"), err=True)
    counts = Counter(outcome.result for outcome in outcomes)
    if out.as_json:
        out.document(
            {
                "object": "ragagent.ingest",
                "store": target,
                **{result: counts[result] for result in get_args(Result)},
                "skipped": skipped,
                "failures": [{"path": failure.name, "reason": failure.reason} for failure in failures],
            }
        )
    else:
        told = ", ".join(f"{counts[result]} {result}" for result in get_args(Result) if counts[result])
        passed_over = f" ({skipped} files of other kinds passed over)" if skipped else ""
        out.line(f"Store '{clean(target['name'])}' ({target['id']}): {told}{passed_over}.")
    if failures:
        click.get_current_context().exit(EXIT_FAILED)
