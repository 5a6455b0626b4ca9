"""What every request leaves behind: a request id, a server span, two metrics, two headers, a line in the access log.

Pure ASGI, outermost of the application: whoever answers further in, an error handler too, answers with an
`x-request-id`. Inside, `scope["state"]` holds `request_id` and `timings`, the milliseconds of the stages so far, which
go out as `server-timing` when the answer starts. The route's template is known only after routing, so the span is named
at the end; the path itself never names anything, because clients choose it.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import random
import re
import time
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragagent import names, telemetry

log = logging.getLogger("ragagent.access")

METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"))
MAX_LOGGED_PATH: Final = 512

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,128}")
_UNRESERVED = "/:@!$&'()*+,;=~"  # what a path may hold beside letters and digits; control characters may not


class Observe:
    """Report every HTTP request that passes, and pass everything on. What escapes is recorded and raised again."""

    def __init__(self, app: ASGIApp, *, access_log: bool = False, trust_traceparent: bool = False) -> None:
        self._app = app
        self._access_log = access_log
        self._trust = trust_traceparent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Without a client it is a probe: nobody sent it, and one every two seconds would drown what somebody did.
        if scope["type"] != "http" or scope.get("client") is None:
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        telemetry.count(names.HTTP_ACTIVE, 1, exchange.flight)
        try:
            with telemetry.server_span(exchange.method, scope["headers"], trust=self._trust) as span:
                if span.is_recording:
                    exchange.describe(span)
                try:
                    await self._app(scope, receive, exchange.send)
                except BaseException as exc:
                    exchange.escaped(exc)
                    raise
                finally:
                    exchange.finish(span)
        finally:
            telemetry.count(names.HTTP_ACTIVE, -1, exchange.flight)
            if self._access_log:
                log.info("%s", exchange)


class _Exchange:
    """One request and its answer, as far as it has come."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._began = time.perf_counter()
        self._scope = scope
        self._send = send
        self._status: int | None = None
        self._error: str | None = None
        self._seconds = 0.0
        self.method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        self.flight: telemetry.Attributes = {names.HTTP_METHOD: self.method, names.URL_SCHEME: scope["scheme"]}
        self.request_id = _request_id(scope["headers"])
        # A dict of this request's own: what the server hands out may be the one that all requests share.
        scope["state"] = {"timings": {}, **scope.get("state", {}), "request_id": self.request_id}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self._headers()]}
        await self._send(message)

    def escaped(self, exc: BaseException) -> None:
        """Note what the application raised. If it had not begun to answer, the server answers with a 500."""
        if isinstance(exc, Exception):
            self._error = telemetry.error_type(exc)
            self._status = self._status or 500
        else:
            self._error = "cancelled"

    def describe(self, span: telemetry.Span) -> None:
        """Set what is known before the application runs."""
        scope = self._scope
        host, port = scope.get("server") or (None, None)
        client = scope.get("client")
        agent = next((value for key, value in scope["headers"] if key == b"user-agent"), None)
        span.set_all(
            {
                names.HTTP_METHOD: self.method,
                names.URL_SCHEME: scope["scheme"],
                names.URL_PATH: scope["path"],
                names.SERVER_ADDRESS: host,
                names.SERVER_PORT: port,
                names.CLIENT_ADDRESS: _network(client[0]) if client else None,
                names.NETWORK_PROTOCOL_VERSION: scope["http_version"],
                names.USER_AGENT: agent.decode("latin-1")[:256] if agent else None,
                names.REQUEST_ID: self.request_id,
            }
        )

    def finish(self, span: telemetry.Span) -> None:
        """Record the duration, and give the span its name and its end."""
        self._seconds = time.perf_counter() - self._began
        if self._error is None and self._status is not None and self._status >= 500:
            self._error = str(self._status)
            span.fail(self._error)
        route = _route(self._scope)
        method = "HTTP" if self.method == "_OTHER" else self.method
        span.rename(names.HTTP_SERVER.format(method=method, route=route) if route else method)
        span.set_all({names.HTTP_ROUTE: route, names.HTTP_STATUS: self._status})
        telemetry.record(names.HTTP_DURATION, self._seconds, self._labels(route))

    def __str__(self) -> str:
        """The line of the access log. A decoded path may hold line ends: it goes back to its percent-encoded form."""
        path = quote(self._scope["path"], safe=_UNRESERVED, errors="replace")[:MAX_LOGGED_PATH]
        return f"{self.method} {path} {self._status or '-'} {self._seconds * 1000:.1f}ms {self.request_id}"

    def _labels(self, route: str | None) -> telemetry.Attributes:
        labels = {
            **self.flight,
            names.HTTP_ROUTE: route,
            names.HTTP_STATUS: self._status,
            names.NETWORK_PROTOCOL_VERSION: self._scope["http_version"],
            names.ERROR_TYPE: self._error,
        }
        return {key: value for key, value in labels.items() if value is not None}

    def _headers(self) -> Iterable[tuple[bytes, bytes]]:
        total = (time.perf_counter() - self._began) * 1000
        stages = {"total": total, **self._scope["state"]["timings"]}
        timing = ", ".join(f"{stage};dur={milliseconds:.2f}" for stage, milliseconds in stages.items())
        yield b"x-request-id", self.request_id.encode()
        yield b"server-timing", timing.encode()


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    for key, value in headers:
        if key == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode()
    # An id, not a secret: `random` needs no system call, and seeds itself anew in every forked process.
    return f"req_{random.getrandbits(128):032x}"


def _route(scope: Scope) -> str | None:
    """Return the template of the route that was taken, under the path of its mounts; None when none matched."""
    route = scope.get("route")
    root = scope.get("root_path", "").rstrip("/")
    if isinstance(route, Mount):  # to an application without routes of its own, such as static files
        return root or "/"
    template = getattr(route, "path_format", None)
    return None if template is None else f"{root}{template}" or "/"


@functools.lru_cache(maxsize=1024)
def _network(address: str) -> str | None:
    """Return the client's network: enough to see where load comes from, too little to name a person."""
    try:
        host = ipaddress.ip_address(address)
    except ValueError:
        return None  # a Unix socket, or a proxy's invention
    prefix = 24 if host.version == 4 else 56
    return str(ipaddress.ip_network((host, prefix), strict=False).network_address)
