"""`/v1/files`: bytes as they were uploaded."""

from __future__ import annotations

from urllib.parse import quote

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ragagent.api.replies import JSON, listing, page_of
from ragagent.api.services import caller, services
from ragagent.errors import Invalid
from ragagent.types import File

MAX_FILENAME = 512
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")  # OpenAI's


def shown(row: File) -> JSON:
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": row.created_at,
        "filename": row.filename,
        "purpose": row.purpose,
        "status": "processed",
        "status_details": None,
        "expires_at": None,
    }


async def create(request: Request) -> JSONResponse:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Invalid("An upload is multipart/form-data with the fields 'file' and 'purpose'.", param="file")
    async with request.form(max_files=1, max_fields=20) as form:
        upload, purpose = form.get("file"), form.get("purpose")
        if any(name.startswith("expires_after") for name in form):  # expires_after[anchor], expires_after[seconds]
            raise Invalid("'expires_after' is not supported: a file lives until it is deleted.", param="expires_after")
        if not isinstance(upload, UploadFile):
            raise Invalid("'file' is missing.", param="file", code="missing_required_parameter")
        if not isinstance(purpose, str) or not purpose.strip():
            raise Invalid("'purpose' is missing.", param="purpose", code="missing_required_parameter")
        if purpose not in PURPOSES:
            raise Invalid(
                f"'purpose' has value '{purpose:.80}'; it must be one of {', '.join(PURPOSES)}.", param="purpose"
            )
        filename = _filename(upload.filename)
        data = await upload.read()
    # The client does not say that two uploads are one, but it says that it retries.
    is_retry = request.headers.get("x-stainless-retry-count", "0") != "0"
    row = await services(request).catalog.add_file(caller(request), filename, purpose, data, is_retry=is_retry)
    return JSONResponse(shown(row))


def _filename(given: str | None) -> str:
    """Return the last part of the name: what a browser or a script puts before it is not ours to keep."""
    name = (given or "").replace("\\", "/").rpartition("/")[2].strip()
    if not name or len(name) > MAX_FILENAME or not name.isprintable():
        raise Invalid(f"The file name {given!r:.80} is not usable.", param="file")
    return name


async def index(request: Request) -> JSONResponse:
    page = page_of(request, largest=10_000, default=10_000)
    rows = await services(request).catalog.files(caller(request), request.query_params.get("purpose"), page)
    return listing([shown(row) for row in rows], page)


async def show(request: Request) -> JSONResponse:
    return JSONResponse(shown(await services(request).catalog.file(caller(request), request.path_params["file_id"])))


async def content(request: Request) -> Response:
    row, data = await services(request).catalog.file_content(caller(request), request.path_params["file_id"])
    # Never a type that a browser would run: these are a stranger's bytes.
    headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(row.filename)}"}
    return Response(data, media_type="application/octet-stream", headers=headers)


async def delete(request: Request) -> JSONResponse:
    app = services(request)
    row = await app.catalog.delete_file(caller(request), request.path_params["file_id"])
    app.ingest.ring()
    return JSONResponse({"id": row.id, "object": "file", "deleted": True})


routes = [
    Route("/v1/files", create, methods=["POST"]),
    Route("/v1/files", index),
    Route("/v1/files/{file_id}", show),
    Route("/v1/files/{file_id}", delete, methods=["DELETE"]),
    Route("/v1/files/{file_id}/content", content),
]
