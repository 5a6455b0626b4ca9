"""`ragagent search`: ranked passages of one store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from ragagent.cli.client import Client, segment, with_client
from ragagent.cli.output import Output, clean, reporting
from ragagent.cli.pairs import PAIR, Pair, filters
from ragagent.cli.snippet import snippet


@click.command()
@click.argument("query")
@click.option("--store", "name", default="default", show_default=True, metavar="NAME", help="Name or id of the store.")
@click.option("-k", "results", type=click.IntRange(1, 50), default=5, show_default=True, help="How many passages.")
@click.option(
    "--filter", "pairs", type=PAIR, multiple=True, metavar="KEY=VALUE", help="Attribute to match; repeatable."
)
@reporting
@with_client
def search(query: str, name: str, results: int, pairs: Sequence[Pair], out: Output, client: Client) -> None:
    """Find passages, best first."""
    body: dict[str, Any] = {"query": query, "max_num_results": results}
    if chosen := filters(pairs):
        body["filters"] = chosen
    found = client.post(f"/v1/vector_stores/{segment(name)}/search", body)
    if out.as_json:
        out.document(found)
        return
    for rank, hit in enumerate(found["data"], start=1):
        out.line(_head(rank, hit))
        out.line(f"   {snippet(hit['content'][0]['text'], query)}")
    if not found["data"]:
        out.line("Nothing found.")


def _head(rank: int, hit: Mapping[str, Any]) -> str:
    # `ragagent ingest` leaves the path as an attribute; the filename is only its last part.
    where = hit["attributes"].get("path", hit["filename"])
    return f"{rank:>2} {hit['score']:.3f}  {click.style(clean(str(where)), fg='cyan')}"
