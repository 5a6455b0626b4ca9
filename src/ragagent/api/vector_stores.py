"""`/v1/vector_stores`: collections, and the search over one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ragagent.api.replies import JSON, freshness, listing, note_timings, page_of, read_headers, seq_header
from ragagent.api.schemas.body import read
from ragagent.api.schemas.search import Search, filter_tree
from ragagent.api.schemas.vector_stores import CreateStore, UpdateStore, chunking_of
from ragagent.api.services import caller, services
from ragagent.engine.ingest import Attachment
from ragagent.engine.retrieval.query import Query
from ragagent.errors import Invalid, RagagentError
from ragagent.types import Counts, Evidence, VectorStore


def shown(row: VectorStore, counts: Counts) -> JSON:
    return {
        "id": row.id,
        "object": "vector_store",
        "created_at": row.created_at,
        "last_active_at": None,
        "name": row.name,
        "description": None,
        "metadata": dict(row.metadata),
        "status": "in_progress" if counts.in_progress else "completed",
        "usage_bytes": counts.usage_bytes,
        "file_counts": file_counts(counts),
        "expires_after": None,
        "expires_at": None,
    }


def file_counts(counts: Counts) -> Mapping[str, int]:
    return {
        "in_progress": counts.in_progress,
        "completed": counts.completed,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
        "total": counts.total,
    }


async def create(request: Request) -> JSONResponse:
    asked = await read(request, CreateStore, optional=True)
    _refuse_expiry(asked.expires_after)
    app, who = services(request), caller(request)
    chunking = chunking_of(asked.chunking_strategy)
    for file_id in asked.file_ids:
        await app.catalog.file(who, file_id)  # Before the store is there: a wrong id leaves nothing half-made.
    row = await app.catalog.create_store(who, asked.name or "", asked.metadata or {}, chunking)
    seq = row.seq
    if asked.file_ids:
        try:
            seq = (await app.ingest.attach(who, row.id, [Attachment(file_id) for file_id in asked.file_ids])).seq
        except RagagentError:
            await app.catalog.delete_store(who, row.id)  # The client tries again, and must not end up with two.
            raise
    app.ingest.ring()
    (counts,) = await app.catalog.counts([row])
    return JSONResponse(shown(row, counts), headers=seq_header(seq))


async def index(request: Request) -> JSONResponse:
    app, page = services(request), page_of(request)
    rows = await app.catalog.stores(caller(request), page)
    counts = await app.catalog.counts(rows)
    return listing([shown(row, count) for row, count in zip(rows, counts, strict=True)], page)


async def show(request: Request) -> JSONResponse:
    app = services(request)
    row = await app.catalog.store(caller(request), request.path_params["store_id"])
    (counts,) = await app.catalog.counts([row])
    return JSONResponse(shown(row, counts))


async def update(request: Request) -> JSONResponse:
    asked = await read(request, UpdateStore)
    _refuse_expiry(asked.expires_after)
    app = services(request)
    row = await app.catalog.update_store(
        caller(request), request.path_params["store_id"], name=asked.name, metadata=asked.metadata
    )
    (counts,) = await app.catalog.counts([row])
    return JSONResponse(shown(row, counts))


async def delete(request: Request) -> JSONResponse:
    app = services(request)
    row, seq = await app.catalog.delete_store(caller(request), request.path_params["store_id"])
    app.ingest.ring()
    deleted = {"id": row.id, "object": "vector_store.deleted", "deleted": True}
    return JSONResponse(deleted, headers=seq_header(seq))


async def search(request: Request) -> JSONResponse:
    asked = await read(request, Search)
    app, who = services(request), caller(request)
    store = await app.catalog.store(who, request.path_params["store_id"])
    app.catalog.check_space(store)
    (store,) = await freshness(request, app, [store])
    texts = [asked.query] if isinstance(asked.query, str) else asked.query
    best: dict[int, Evidence] = {}
    for retrieval in await app.retriever.retrieve_together(who, [_query(asked, text, store) for text in texts]):
        note_timings(request, retrieval.timings)
        for item in retrieval.evidence:
            if item.chunk_id not in best or item.score > best[item.chunk_id].score:
                best[item.chunk_id] = item
    ranked = sorted(best.values(), key=lambda item: -item.score)[: asked.max_num_results]
    return JSONResponse(
        {
            "object": "vector_store.search_results.page",
            "search_query": texts,
            "data": [_result(item) for item in ranked],
            "has_more": False,
            "next_page": None,
        },
        headers=read_headers(retrieval.tier, retrieval.found.generations, [store]),
    )


def _query(asked: Search, text: str, store: VectorStore) -> Query:
    ranking = asked.ranking_options
    return Query(
        text=text,
        stores=(store,),
        limit=asked.max_num_results,
        filter=filter_tree(asked.filters),
        fusion=ranking.fusion,
        dense_weight=ranking.dense_weight,
        score_threshold=ranking.score_threshold,
    )


def _result(item: Evidence) -> JSON:
    return {
        "file_id": item.file_id,
        "filename": item.filename,
        "score": item.score,
        "attributes": dict(item.attributes),
        "content": [{"type": "text", "text": item.text}],
        "chunk_id": chunk_name(item.chunk_id),
        "start": item.start,
        "end": item.end,
        "scores": {"dense": item.dense, "lexical": item.lexical},
    }


def chunk_name(chunk_id: int) -> str:
    return f"chunk_{chunk_id}"


def _refuse_expiry(expires_after: Any) -> None:
    # Accepting it and keeping the store for ever would be a promise broken in silence.
    if expires_after is not None:
        raise Invalid(
            "'expires_after' is not supported: a vector store lives until it is deleted.", param="expires_after"
        )


routes = [
    Route("/v1/vector_stores", create, methods=["POST"]),
    Route("/v1/vector_stores", index),
    Route("/v1/vector_stores/{store_id}", show),
    Route("/v1/vector_stores/{store_id}", update, methods=["POST"]),
    Route("/v1/vector_stores/{store_id}", delete, methods=["DELETE"]),
    Route("/v1/vector_stores/{store_id}/search", search, methods=["POST"]),
]
