"""From what a request says to the Question that the engine answers. Chat and responses ask alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import Request

from ragagent.api.models import profile
from ragagent.api.replies import freshness
from ragagent.api.schemas.asking import Asking, FileSearchTool
from ragagent.api.schemas.search import ComparisonFilter, CompoundFilter, RankingOptions, filter_tree
from ragagent.api.services import Services, caller, services
from ragagent.engine.answering.answer import Question
from ragagent.engine.retrieval.query import Query
from ragagent.errors import Invalid
from ragagent.types import Caller, Message, Page, VectorStore


async def question(
    request: Request, asked: Asking, history: Sequence[Message], text: str, *, max_tokens: int | None
) -> Question:
    """Put together what the profile says, what a file_search tool says, and what our own field says: the last wins.

    Its stores show what `x-ragagent-min-seq` asks for.
    """
    app, who = services(request), caller(request)
    chosen = profile(app, asked.model)
    search = _search_settings(asked)
    stores = await freshness(request, app, await _stores(app, who, search.stores or chosen.stores))
    query = Query(
        text=text,
        stores=tuple(stores),
        limit=search.results or chosen.results or app.config.retrieval.results,
        filter=filter_tree(search.filters),
        fusion=search.ranking.fusion,
        dense_weight=search.ranking.dense_weight,
        score_threshold=search.ranking.score_threshold,
    )
    return Question(
        query=query,
        history=tuple(history),
        profile=asked.model,
        instructions=chosen.instructions,
        max_tokens=max_tokens,
        temperature=asked.temperature,
    )


def fields(asked: Asking, text: str) -> Mapping[str, str]:
    """Return where in this request the parameters of its search came from; `text` is the field of the question."""
    ours, tool = asked.ragagent, bool(asked.tools)
    return {
        "query": text,
        "filters": "ragagent.filters" if ours.filters else "tools",
        "vector_store_ids": "ragagent.stores" if ours.stores or not tool else "tools",
        "vector_store_id": "ragagent.stores" if ours.stores else "tools" if tool else "model",
    }


@dataclass(frozen=True, slots=True)
class SearchSettings:
    stores: Sequence[str]
    results: int | None
    filters: ComparisonFilter | CompoundFilter | None
    ranking: RankingOptions


def _search_settings(asked: Asking) -> SearchSettings:
    for tool in asked.tools:
        if tool.type != "file_search":
            raise Invalid(f"'tools': the type '{tool.type}' is not supported, only 'file_search'.", param="tools")
    tool = asked.tools[0] if asked.tools else FileSearchTool(type="file_search")
    ours = asked.ragagent
    return SearchSettings(
        stores=ours.stores or [store for tool in asked.tools for store in tool.vector_store_ids],
        results=ours.results or tool.max_num_results,
        filters=ours.filters or tool.filters,
        ranking=ours.ranking_options or tool.ranking_options,
    )


async def _stores(app: Services, who: Caller, names: Sequence[str]) -> list[VectorStore]:
    """Return the stores of those names; without names, all that the caller may read (retrieval bounds how many)."""
    if names:
        stores = await app.catalog.stores_named(who, names)
    else:
        stores = await app.catalog.stores(who, Page(limit=app.config.retrieval.max_stores + 1, order="asc"))
    for store in stores:
        app.catalog.check_space(store)
    return stores
