"""`/v1/ragagent/documents`: texts under the caller's own ids, in one call. The part that OpenAI's API lacks."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ragagent.api.problems import in_terms_of
from ragagent.api.replies import acknowledged, seq_header
from ragagent.api.schemas.body import read
from ragagent.api.schemas.documents import DeleteDocuments, NewText, UpsertDocuments
from ragagent.api.services import caller, services
from ragagent.api.vector_store_files import shown
from ragagent.engine.ingest import NewDocument, check_text
from ragagent.errors import Invalid

_FIELDS = {"vector_store_id": "store"}


async def upsert(request: Request) -> JSONResponse:
    asked = await read(request, UpsertDocuments)
    app, who = services(request), caller(request)
    limit = app.config.ingest.max_text_chars
    new = [_new_document(document, position, limit) for position, document in enumerate(asked.documents)]
    with in_terms_of(_FIELDS):
        written = await app.ingest.upsert(who, asked.store, new)
    visible = await app.ingest.visible(written.store, written.seq, app.config.ingest.wait_seconds)
    seen = await app.catalog.visible_seq(written.store.id)
    data = [shown(row, seen) for row in await app.catalog.current(written.documents)]
    return JSONResponse(
        {"object": "list", "vector_store_id": written.store.id, "seq": written.seq, "data": data},
        200 if visible else 202,
        headers=seq_header(written.seq),
    )


def _new_document(given: NewText, position: int, max_chars: int) -> NewDocument:
    field = f"documents.{position}.text"
    if given.url is not None:
        raise Invalid("Fetching a 'url' is not supported; send its 'text'.", param=f"documents.{position}.url")
    if given.text is None:
        raise Invalid(f"'{field}' is missing.", param=field, code="missing_required_parameter")
    text = check_text(given.text, max_chars=max_chars, param=field)
    return NewDocument(given.external_id, text, given.title, given.attributes)


async def delete(request: Request) -> JSONResponse:
    asked = await read(request, DeleteDocuments)
    with in_terms_of(_FIELDS):
        written, found = await services(request).ingest.remove(caller(request), asked.store, asked.external_ids)
    gone = set(found)
    missing = [external_id for external_id in asked.external_ids if external_id not in gone]
    return await acknowledged(
        request,
        written,
        {
            "object": "list.deleted",
            "vector_store_id": written.store.id,
            "seq": written.seq,
            "deleted": found,
            "missing": missing,
        },
    )


routes = [
    Route("/v1/ragagent/documents", upsert, methods=["POST"]),
    Route("/v1/ragagent/documents", delete, methods=["DELETE"]),
]
