"""`/v1/vector_stores/{id}/files` and `/file_batches`: what stands in a store, and how far its ingest is."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ragagent.api.replies import JSON, POLL_AFTER_MS, acknowledged, listing, page_of, seq_header
from ragagent.api.schemas.body import read
from ragagent.api.schemas.vector_stores import AttachFile, CreateBatch, UpdateFile, chunking_of
from ragagent.api.services import Services, caller, services
from ragagent.api.vector_stores import file_counts
from ragagent.engine.ingest import Attachment
from ragagent.errors import Invalid
from ragagent.types import Batch, Counts, Document, Page

STATUSES = ("in_progress", "completed", "failed", "cancelled")
FAILURES = ("server_error", "unsupported_file", "invalid_file")  # all that OpenAI's `last_error.code` may be


def shown(row: Document, seen: int) -> JSON:
    """Return the document as OpenAI shows it, when searches of its store see everything up to `seen`."""
    code = row.error_code if row.error_code in FAILURES else "server_error"
    error = {"code": code, "message": row.error_message} if row.error_code else None
    return {
        "id": row.file_id,
        "object": "vector_store.file",
        "vector_store_id": row.store_id,
        "created_at": row.created_at,
        "status": row.visible_status(seen),
        "last_error": error,
        "usage_bytes": row.usage_bytes,
        "attributes": dict(row.attributes),
        "chunking_strategy": {
            "type": "static",
            "static": {
                "max_chunk_size_tokens": row.chunk_tokens,
                "chunk_overlap_tokens": row.overlap_tokens,
            },
        },
        "external_id": row.external_id,
    }


async def create(request: Request) -> JSONResponse:
    asked = await read(request, AttachFile)
    app, who, store_id = services(request), caller(request), request.path_params["store_id"]
    chunking = chunking_of(asked.chunking_strategy)
    written = await app.ingest.attach(who, store_id, [Attachment(asked.file_id, asked.attributes or {}, chunking)])
    visible = await app.ingest.visible(written.store, written.seq, app.config.ingest.wait_seconds)
    (row,) = await app.catalog.current(written.documents)
    seen = await app.catalog.visible_seq(row.store_id)
    return JSONResponse(shown(row, seen), 200 if visible else 202, headers=seq_header(written.seq))


async def index(request: Request) -> JSONResponse:
    app, page = services(request), page_of(request)
    rows = await app.catalog.documents(
        caller(request), request.path_params["store_id"], page, status=_status_filter(request)
    )
    return await _listing(app, rows, page)


async def show(request: Request) -> JSONResponse:
    app = services(request)
    row = await app.catalog.document(caller(request), request.path_params["store_id"], request.path_params["file_id"])
    seen = await app.catalog.visible_seq(row.store_id)
    return JSONResponse(shown(row, seen), headers={"openai-poll-after-ms": POLL_AFTER_MS})


async def update(request: Request) -> JSONResponse:
    asked = await read(request, UpdateFile)
    app, who = services(request), caller(request)
    written = await app.ingest.set_attributes(
        who, request.path_params["store_id"], request.path_params["file_id"], asked.attributes or {}
    )
    seen = await app.catalog.visible_seq(written.store.id)
    return await acknowledged(request, written, shown(written.documents[0], seen))


async def delete(request: Request) -> JSONResponse:
    file_id = request.path_params["file_id"]
    written = await services(request).ingest.detach(caller(request), request.path_params["store_id"], file_id)
    deleted = {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}
    return await acknowledged(request, written, deleted)


async def content(request: Request) -> JSONResponse:
    row, filename, texts = await services(request).catalog.document_text(
        caller(request), request.path_params["store_id"], request.path_params["file_id"]
    )
    return JSONResponse(
        {
            "object": "vector_store.file_content.page",
            "file_id": row.file_id,
            "filename": filename,
            "attributes": dict(row.attributes),
            "data": [{"type": "text", "text": text} for text in texts],
            "has_more": False,
            "next_page": None,
        }
    )


# Batches


def shown_batch(batch: Batch, counts: Counts) -> JSON:
    running = "in_progress" if counts.in_progress else "completed"
    return {
        "id": batch.id,
        "object": "vector_store.files_batch",
        "created_at": batch.created_at,
        "vector_store_id": batch.store_id,
        "status": "cancelled" if batch.cancelled_at else running,
        "file_counts": file_counts(counts),
    }


async def create_batch(request: Request) -> JSONResponse:
    asked = await read(request, CreateBatch)
    app, who = services(request), caller(request)
    batch, written = await app.ingest.attach_batch(who, request.path_params["store_id"], _batch_files(asked))
    _, counts = await app.catalog.batch(who, written.store.id, batch.id)
    return JSONResponse(shown_batch(batch, counts), headers=seq_header(written.seq))


def _batch_files(asked: CreateBatch) -> list[Attachment]:
    """Return each file with its own attributes and chunking; those of the batch are the default."""
    shared = chunking_of(asked.chunking_strategy)
    if asked.files:
        return [
            Attachment(
                file.file_id,
                file.attributes or asked.attributes or {},
                chunking_of(file.chunking_strategy) or shared,
            )
            for file in asked.files
        ]
    return [Attachment(file_id, asked.attributes or {}, shared) for file_id in asked.file_ids or ()]


async def show_batch(request: Request) -> JSONResponse:
    batch, counts = await services(request).catalog.batch(
        caller(request), request.path_params["store_id"], request.path_params["batch_id"]
    )
    return JSONResponse(shown_batch(batch, counts), headers={"openai-poll-after-ms": POLL_AFTER_MS})


async def cancel_batch(request: Request) -> JSONResponse:
    await services(request).ingest.cancel(
        caller(request), request.path_params["store_id"], request.path_params["batch_id"]
    )
    return await show_batch(request)


async def batch_files(request: Request) -> JSONResponse:
    app, page = services(request), page_of(request)
    rows = await app.catalog.documents(
        caller(request),
        request.path_params["store_id"],
        page,
        batch_id=request.path_params["batch_id"],
        status=_status_filter(request),
    )
    return await _listing(app, rows, page)


async def _listing(app: Services, rows: Sequence[Document], page: Page) -> JSONResponse:
    seen = await app.catalog.visible_seq(rows[0].store_id) if rows else 0
    return listing([shown(row, seen) for row in rows], page)


def _status_filter(request: Request) -> str | None:
    wanted = request.query_params.get("filter")
    if wanted is not None and wanted not in STATUSES:
        raise Invalid(f"'filter' has value '{wanted:.80}'; it must be one of {', '.join(STATUSES)}.", param="filter")
    return wanted


_STORE = "/v1/vector_stores/{store_id}"
routes = [
    Route(f"{_STORE}/files", create, methods=["POST"]),
    Route(f"{_STORE}/files", index),
    Route(f"{_STORE}/files/{{file_id}}", show),
    Route(f"{_STORE}/files/{{file_id}}", update, methods=["POST"]),
    Route(f"{_STORE}/files/{{file_id}}", delete, methods=["DELETE"]),
    Route(f"{_STORE}/files/{{file_id}}/content", content),
    Route(f"{_STORE}/file_batches", create_batch, methods=["POST"]),
    Route(f"{_STORE}/file_batches/{{batch_id}}", show_batch),
    Route(f"{_STORE}/file_batches/{{batch_id}}/cancel", cancel_batch, methods=["POST"]),
    Route(f"{_STORE}/file_batches/{{batch_id}}/files", batch_files),
]
