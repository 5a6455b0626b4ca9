"""Errors as OpenAI's envelope: `{"error": {"message", "type", "param", "code"}}` with a real status.

The official client builds its exceptions from exactly this, and loses the message of any other shape. It retries 408,
409, 429 and 5xx by itself, so what a retry cannot mend says `x-should-retry: false`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragagent import names, telemetry
from ragagent.errors import OverQuota, RagagentError

log = logging.getLogger("ragagent.api")

# code -> (status, OpenAI's type); looked up by the error's own code, then by its class's, then by those it inherits.
STATUS: dict[str, tuple[int, str]] = {
    "invalid_value": (400, "invalid_request_error"),
    "request_timeout": (408, "invalid_request_error"),
    "invalid_api_key": (401, "authentication_error"),
    "forbidden": (403, "permission_error"),
    "not_found": (404, "invalid_request_error"),
    "conflict": (409, "invalid_request_error"),
    "idempotency_key_reused": (422, "invalid_request_error"),
    "too_large": (413, "invalid_request_error"),
    "rate_limit_exceeded": (429, "rate_limit_error"),
    "insufficient_quota": (429, "insufficient_quota"),  # as OpenAI has it, also with x-should-retry: false
    "internal_error": (500, "server_error"),
    "damaged": (500, "server_error"),
    "invalid_config": (500, "server_error"),
    "upstream_error": (502, "server_error"),
    "unavailable": (503, "server_error"),
    "insufficient_storage": (507, "server_error"),
}
RETRYABLE = {408, 429, 502, 503}
# In scope["state"]: a function that returns what errors bear as well, from a ring further in that they have passed by.
HEADERS = "error headers"


@contextmanager
def in_terms_of(fields: Mapping[str, str]) -> Iterator[None]:
    """Name in errors the fields that this request has: what lies below knows only those of its own parameters."""
    try:
        yield
    except RagagentError as exc:
        exc.param = fields.get(exc.param or "", exc.param)
        raise


def status_of(error: RagagentError) -> tuple[int, str]:
    codes = (error.code, *(kind.code for kind in type(error).__mro__ if issubclass(kind, RagagentError)))
    return next(STATUS[code] for code in codes if code in STATUS)


def body(error: RagagentError) -> dict[str, Any]:
    """Return the envelope. What a stream that has begun sends as its last event is the same."""
    _, kind = status_of(error)
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def response(error: RagagentError) -> JSONResponse:
    status, _ = status_of(error)
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    passes = status in RETRYABLE or error.retry_after is not None
    if not passes or isinstance(error, OverQuota):
        headers["x-should-retry"] = "false"
    return JSONResponse(body(error), status, headers=headers)


async def http_exception(request: Request, exc: Exception) -> JSONResponse:
    """Answer what Starlette itself refuses: an unknown path, a method that a path does not take, a broken form."""
    assert isinstance(exc, HTTPException)
    kinds = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
    path = f"{request.scope['path']:.256}"
    message = {
        404: f"There is no '{path}' here.",
        405: f"'{path}' does not take {request.method}.",
    }.get(exc.status_code, exc.detail)
    envelope = {
        "message": message,
        "type": "invalid_request_error",
        "param": None,
        "code": kinds.get(exc.status_code, "invalid_value"),
    }
    return JSONResponse(
        {"error": envelope}, exc.status_code, headers={**(exc.headers or {}), "x-should-retry": "false"}
    )


class Problems:
    """The one place where an exception becomes an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def observed(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except RagagentError as exc:
            if started:
                raise  # The status is gone already; cutting the connection is the only honest end.
            _note(exc)
            await _answer(exc, scope, receive, send)
        except ClientDisconnect:
            log.debug("the client left %s %r before its answer", scope["method"], scope["path"])
        except Exception:
            log.exception("unexpected error in %s %r", scope["method"], scope["path"])  # %r: a path may hold line ends.
            if started:
                raise
            mistake = RagagentError("The server made a mistake; the request id leads to it in the log.")
            await _answer(mistake, scope, receive, send)


async def _answer(error: RagagentError, scope: Scope, receive: Receive, send: Send) -> None:
    answer = response(error)
    if (headers := scope.get("state", {}).get(HEADERS)) is not None:
        answer.raw_headers.extend(headers())
    await answer(scope, receive, send)


def _note(exc: RagagentError) -> None:
    status, _ = status_of(exc)
    if status >= 500:
        # The public sees the message alone; the cause is the operator's.
        log.error("%s: %s", exc.code, exc.message, exc_info=exc.__cause__)
    elif status == 401:
        telemetry.count(names.AUTH_FAILURES, attributes={names.AUTH_FAILURE: exc.code})
    else:
        telemetry.count(names.INPUT_REJECTED, attributes={names.INPUT_REJECTION: exc.code})
