"""What `ragagent index` orders of the indexer: written into the database, followed until it is done, and told."""

from __future__ import annotations

from ragagent.cli.database import opened, store_named
from ragagent.cli.edition import all_of, ring, standing, wait
from ragagent.cli.output import Output
from ragagent.config import Config, Data
from ragagent.errors import Conflict, Invalid, NotFound
from ragagent.store import editions, stores
from ragagent.store.database import Database, Transaction
from ragagent.store.editions import Edition, State
from ragagent.types import VectorStore


def switch(name: str, tenant: str, state: State, at_once: bool, out: Output, data: Data) -> None:
    with opened(data) as database:
        with database.write() as tx:
            edition = beside(tx, store_named(tx, tenant, name), state)
            editions.want(tx, edition)

        def look(tx: Transaction) -> tuple[float, str | None] | None:
            row, store = editions.find(tx, edition.store_id, state), stores.get(tx, edition.store_id)
            return None if row is None or store is None else (standing(tx, data.index, store, row).done, row.trouble)

        ring(data)
        if not at_once:
            wait(database, f"'{name}' is searched by '{edition.model}' as soon as its index has all", look)
        said = f"is ordered to be searched by '{edition.model}'" if at_once else f"is searched by '{edition.model}'"
        say(out, database, data, edition, said)


def go_back(name: str, tenant: str, generation: int, at_once: bool, out: Output, data: Data) -> None:
    with opened(data) as database:
        with database.write() as tx:
            searched = editions.searched(store_named(tx, tenant, name))
            editions.order_return(tx, searched.store_id, generation)

        def look(tx: Transaction) -> tuple[float, str | None] | None:
            is_ordered, trouble = editions.return_trouble(tx, searched.store_id)
            return (0.0, None) if is_ordered and trouble is None else None

        ring(data)
        if not at_once:
            wait(database, f"The index of '{name}' goes back to generation {generation}", look)
            with database.write() as tx:
                _, trouble = editions.return_trouble(tx, searched.store_id)
                if trouble is not None:
                    editions.end_return(tx, searched.store_id)
            if trouble is not None:
                raise Conflict(trouble)
        said = f"is ordered back to generation {generation}" if at_once else f"went on from generation {generation}"
        say(out, database, data, searched, said)


def drop(name: str, tenant: str, state: State, out: Output, data: Data) -> None:
    with opened(data) as database:
        with database.write() as tx:
            edition = beside(tx, store_named(tx, tenant, name), state)
            editions.drop(tx, edition)
        ring(data)
        say(out, database, data, edition, f"gives up what it has of '{edition.model}'")


def beside(tx: Transaction, store: VectorStore, *states: State) -> Edition:
    found = editions.find(tx, store.id, *states)
    if found is None:
        missing = "no next model; begin with 'ragagent index reembed'" if "next" in states else "nothing kept"
        raise NotFound(f"Vector store '{store.name or store.id}' has {missing}.")
    return found


def say(out: Output, database: Database, data: Data, edition: Edition, said: str) -> None:
    """Say what became of the store's editions. Raises Conflict: what was waited for has come to nothing."""
    with database.read() as tx:
        store = stores.get(tx, edition.store_id)
        if store is None:
            raise NotFound(f"Vector store '{edition.store_id}' was deleted meanwhile.")
        found = all_of(tx, data.index, store)
    if said.startswith("is searched") and store.edition != edition.number:
        raise Conflict(
            f"Vector store '{store.name or store.id}' is not searched by '{edition.model}': it was given up."
        )
    if out.as_json:
        out.document({"store": store.id, "data": [each.document() for each in found]})
    else:
        out.line(f"'{store.name or store.id}' {said}.")


def dimension(settings: Config, model: str) -> int:
    known = [settings.embedder, *settings.embedders.values()]
    found = {embedder.dimension for embedder in known if embedder.model == model}
    if len(found) == 1:
        return found.pop()
    if found:
        raise Invalid(f"The configuration has '{model}' in several dimensions; name one with --dimension.")
    names = ", ".join(f"'{embedder.model}'" for embedder in known)
    raise NotFound(
        f"The configuration has no embedder of the model '{model}', only {names}; add it as [embedders.NAME], reload "
        "the server, and name the file with --config."
    )
