"""`/v1/ragagent/jobs` and `/v1/ragagent/queue`: what is on its way into the stores, and what did not get there."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import get_args, get_type_hints

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ragagent.api.problems import in_terms_of
from ragagent.api.replies import JSON, POLL_AFTER_MS, listing, page_of
from ragagent.api.services import caller, services
from ragagent.engine.indexing.workbench import is_stuck
from ragagent.engine.queue import job_id
from ragagent.errors import Invalid
from ragagent.types import Caller, Job

# What is completed is not listed: `/v1/vector_stores/{id}/files` has it, and one of many it would be.
STATUSES = tuple(status for status in get_args(get_type_hints(Job)["status"]) if status != "completed")


def shown(job: Job) -> JSON:
    now = time.time()
    return {
        "id": job_id(job),
        "object": "ragagent.job",
        "status": job.status,
        "vector_store_id": job.store_id,
        "file_id": job.file_id,
        "filename": job.filename,
        "external_id": job.external_id,
        "bytes": job.bytes,
        "chunks": {"done": job.chunks_done, "total": job.chunks_total},
        "percent": job.percent,
        "attempts": job.attempts,
        "created_at": job.created_at,
        "since": int(job.since),
        "retry_at": int(job.due_at) if job.due_at > now else None,
        "last_error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
        "worker": _worker(job, now),
    }


def _worker(job: Job, now: float) -> JSON | None:
    if job.holder_pid is None or job.beat_at is None:
        return None
    return {
        "pid": job.holder_pid,
        "heartbeat_age_seconds": round(max(now - job.beat_at, 0.0), 1),
        "is_stuck": is_stuck(job),
    }


async def index(request: Request) -> JSONResponse:
    asked, page = request.query_params, page_of(request)
    for unsupported in ("order", "before"):
        if unsupported in asked:
            raise Invalid(f"'{unsupported}' is not supported: jobs are listed newest first.", param=unsupported)
    status = asked.get("status") or None
    if status is not None and status not in STATUSES:
        raise Invalid(f"'status' has value '{status:.80}'; it must be one of {', '.join(STATUSES)}.", param="status")
    with in_terms_of({"vector_store_id": "store", "job_id": "after"}):
        rows = await services(request).queue.jobs(
            caller(request), store=asked.get("store") or None, status=status, after=page.after, limit=page.limit
        )
    return listing([shown(job) for job in rows], page)


async def show(request: Request) -> JSONResponse:
    return await _answer(request, services(request).queue.job)


async def retry(request: Request) -> JSONResponse:
    return await _answer(request, services(request).queue.retry)


async def cancel(request: Request) -> JSONResponse:
    return await _answer(request, services(request).queue.cancel)


async def _answer(request: Request, act: Callable[[Caller, str], Awaitable[Job]]) -> JSONResponse:
    job = await act(caller(request), request.path_params["job_id"])
    return JSONResponse(shown(job), headers={"openai-poll-after-ms": POLL_AFTER_MS})


async def queue(request: Request) -> JSONResponse:
    app = services(request)
    state = await app.queue.state()
    return JSONResponse(
        {
            "object": "ragagent.queue",
            "documents": state.waiting.documents,
            "bytes": state.waiting.bytes,
            "oldest_age_seconds": round(state.oldest_age_seconds, 1),
            "stages": dict(state.stages),
            "limits": {
                "documents": app.config.ingest.max_queue_documents or None,
                "bytes": app.config.ingest.max_queue_bytes or None,
            },
            "documents_per_second": round(state.rate.documents, 2),
            "bytes_per_second": round(state.rate.bytes, 1),
        }
    )


routes = [
    Route("/v1/ragagent/jobs", index),
    Route("/v1/ragagent/jobs/{job_id}", show),
    Route("/v1/ragagent/jobs/{job_id}/retry", retry, methods=["POST"]),
    Route("/v1/ragagent/jobs/{job_id}/cancel", cancel, methods=["POST"]),
    Route("/v1/ragagent/queue", queue),
]
