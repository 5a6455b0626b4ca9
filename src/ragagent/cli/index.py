"""`ragagent index`: each store's index, its rebuilding, and its way to another model. Works on the data directory
itself: it writes what is wanted into the database, and the indexer of the running server does it.
"""

from __future__ import annotations

import asyncio
import functools
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from ragagent.cli.data_directory import with_data, with_settings
from ragagent.cli.database import opened, store_named
from ragagent.cli.edition import HEADER, all_of, in_use, is_ready, problems_of, ring, standing, wait
from ragagent.cli.orders import beside, dimension, drop, go_back, say, switch
from ragagent.cli.output import Command, Output, flat, reporting, table
from ragagent.cli.queries import probes_of
from ragagent.config import Config, Data
from ragagent.engine.publishing.comparing import Comparison, compare, sampled
from ragagent.errors import Conflict
from ragagent.index.searchers import Searchers
from ragagent.store import editions, stores
from ragagent.store.database import Transaction


@click.group()
def index() -> None:
    """Show and rebuild indexes; change a store's model.

    \b
    ragagent index ls                        what is searched, and what stands beside it
    ragagent index rebuild STORE             make an index anew
    ragagent index reembed STORE --model M   make its vectors anew, beside those that are searched
    ragagent index compare STORE             what either model finds
    ragagent index cutover STORE             search by the new one; rollback goes back
    """


def _of_store(command: Command) -> Command:
    """Give the command STORE and --tenant."""

    @click.argument("name", metavar="STORE")
    @click.option("--tenant", default="default", show_default=True, help="Whose store it is.")
    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        command(*args, **kwargs)

    return run


_no_wait = click.option("--no-wait", "at_once", is_flag=True, help="Order it, and do not wait until it is done.")


@index.command("ls")
@reporting
@with_data
def ls(out: Output, data: Data) -> None:
    """List what is searched, and what stands beside it."""
    with opened(data) as database, database.read() as tx:
        found = [each for store in stores.living(tx) for each in all_of(tx, data.index, store)]
    if out.as_json:
        out.document({"object": "list", "data": [each.document() for each in found]})
    elif found:
        out.line(table(HEADER, [each.cells() for each in found]))
        for each in found:
            if each.kept:
                out.line(f"{each.edition.index} keeps generation {', '.join(map(str, each.kept))} to go back to.")
            if each.edition.trouble:
                out.line(f"{each.edition.index} waits: {flat(each.edition.trouble)}")
    else:
        out.line("There is no store.")


@index.command("verify")
@click.argument("names", metavar="[STORE]...", nargs=-1)
@click.option("--tenant", default="default", show_default=True, help="Whose stores they are.")
@reporting
@with_data
def verify_(names: tuple[str, ...], tenant: str, out: Output, data: Data) -> None:
    """Check every byte of the indexes, all or these.

    Exit code 1: one is damaged. The indexer finds it as well after its next start, and makes it anew.
    """
    with opened(data) as database, database.read() as tx:
        wanted = [store_named(tx, tenant, name) for name in names] if names else stores.living(tx)
        found = [(store, edition, problems_of(data.index, store, edition)) for store, edition in in_use(tx, wanted)]
    damaged = [(edition, problems) for _, edition, problems in found if problems]
    if out.as_json:
        out.document({"checked": len(found), "damaged": {edition.index: problems for edition, problems in damaged}})
    for store, edition, problems in () if out.as_json else found:
        out.line(f"{store.name or store.id} ({edition.index}): {'damaged' if problems else 'as it was written'}")
        for problem in problems:
            out.line(f"  {problem}")
    if damaged:
        raise click.exceptions.Exit(1)


@index.command("rebuild")
@_of_store
@_no_wait
@reporting
@with_data
def rebuild(name: str, tenant: str, at_once: bool, out: Output, data: Data) -> None:
    """Make a store's index anew, and switch to it.

    From the database, beside the one that is searched.
    """
    with opened(data) as database:
        with database.write() as tx:
            edition = editions.rebuild(tx, store_named(tx, tenant, name))

        def look(tx: Transaction) -> tuple[float, str | None] | None:
            row, store = editions.find(tx, edition.store_id, "rebuild"), stores.get(tx, edition.store_id)
            return None if row is None or store is None else (standing(tx, data.index, store, row).done, row.trouble)

        ring(data)
        if not at_once:
            wait(database, f"The index of '{name}' is rebuilt as '{edition.index}'", look)
        say(out, database, data, edition, "is ordered to be rebuilt" if at_once else "is rebuilt")


@index.command("reembed")
@_of_store
@click.option("--model", required=True, help="The model of an embedder in the server's configuration.")
@click.option(
    "--dimension", "size", type=click.IntRange(1), help="Its dimension, where that configuration is not at hand."
)
@click.option(
    "--budget",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.25,
    show_default=True,
    help="The share of the time that may go into it.",
)
@_no_wait
@reporting
@with_settings
def reembed(
    name: str,
    tenant: str,
    model: str,
    size: int | None,
    budget: float,
    at_once: bool,
    out: Output,
    settings: Config,
) -> None:
    """Make a store's vectors anew with another model.

    Beside those that are searched; then compare, and cut over.
    """
    data = settings.data
    size = size or dimension(settings, model)
    with opened(data) as database:
        with database.write() as tx:
            edition = editions.reembed(tx, store_named(tx, tenant, name), model, size, budget)

        def look(tx: Transaction) -> tuple[float, str | None] | None:
            row, store = editions.find(tx, edition.store_id, "next"), stores.get(tx, edition.store_id)
            if row is None or store is None:
                return None  # Abandoned, or deleted.
            done = standing(tx, data.index, store, row).done
            return None if done == 1.0 else (done, row.trouble)

        ring(data)
        if not at_once:
            wait(database, f"The vectors of '{name}' are made anew by '{model}'", look)
        said = f"moves to '{model}'" if at_once else f"can be compared, and cut over, to '{model}'"
        say(out, database, data, edition, said)


@index.command("cutover")
@_of_store
@_no_wait
@reporting
@with_data
def cutover(name: str, tenant: str, at_once: bool, out: Output, data: Data) -> None:
    """Search a store by its next model from now on.

    The one before is kept, to roll back to.
    """
    switch(name, tenant, "next", at_once, out, data)


@index.command("rollback")
@_of_store
@click.option("--generation", type=click.IntRange(1), help="Go back to this one of the generations that were kept.")
@_no_wait
@reporting
@with_data
def rollback(name: str, tenant: str, generation: int | None, at_once: bool, out: Output, data: Data) -> None:
    """Go back to the model before the last cutover.

    Nothing that was written since is lost.

    With --generation: to a generation of the same index that 'ragagent index ls' shows as kept.
    """
    if generation is None:
        switch(name, tenant, "kept", at_once, out, data)
    else:
        go_back(name, tenant, generation, at_once, out, data)


@index.command("retire")
@_of_store
@reporting
@with_data
def retire(name: str, tenant: str, out: Output, data: Data) -> None:
    """Give up what is kept to roll back to, after a cutover."""
    drop(name, tenant, "kept", out, data)


@index.command("abandon")
@_of_store
@reporting
@with_data
def abandon(name: str, tenant: str, out: Output, data: Data) -> None:
    """Give up a move to another model."""
    drop(name, tenant, "next", out, data)


@index.command("compare")
@_of_store
@click.option(
    "--queries",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help='A query a line; or JSON lines of "query" and the "external_id" or "file_id" that should be found.',
)
@click.option("--sample", type=click.IntRange(1), default=100, show_default=True, help="So many chunks as queries.")
@reporting
@with_settings
def compare_(name: str, tenant: str, queries: Path | None, sample: int, out: Output, settings: Config) -> None:
    """Compare what the old and the new model find.

    By vectors alone.
    """
    data = settings.data
    with opened(data) as database, closing(Searchers(data.index, ef_search=settings.retrieval.ef_search)) as searchers:
        with database.read() as tx:
            store = store_named(tx, tenant, name)
            other = beside(tx, store, "next", "kept")
            if not is_ready(tx, data.index, other):
                raise Conflict(
                    f"The index of '{other.model}' is not ready yet; 'ragagent index ls' shows how far it is."
                )
        searched = editions.searched(store)
        probes = (
            sampled(database, searched, other, sample)
            if queries is None
            else asyncio.run(probes_of(settings, searched, other, queries))
        )
        found = compare(database, searchers, searched, other, probes)
    if out.as_json:
        out.document({"store": store.id, "old": searched.model, "new": other.model, **_plain(found)})
        return
    out.line(f"'{searched.model}', which is searched, and '{other.model}', over {found.probes} queries:")
    out.line(f"  overlap@10   mean {found.mean:.3f}   worst {found.worst:.2f}   {flat(found.worst_text)[:60]}")
    for side, label in (("old", searched.model), ("new", other.model)) if found.hits else ():
        shares = (found.hits or {})[side]
        out.line(f"  {label}   hit@1 {shares['1']:.3f}   hit@10 {shares['10']:.3f}")


def _plain(found: Comparison) -> dict[str, Any]:
    return {
        "queries": found.probes,
        "overlap": {"mean": found.mean, "worst": found.worst, "worst_query": found.worst_text},
        "hits": found.hits,
    }
