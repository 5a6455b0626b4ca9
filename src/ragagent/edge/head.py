"""Heads of HTTP/1.1 messages: a request's checked and as ASGI's scope, a response's as bytes.

What llhttp checks is not checked again. What it leaves to us, each a MUST of RFC 9112: the version; one `Host`; one
`Transfer-Encoding`, which is `chunked`, and none with HTTP/1.0.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote

from ragagent.edge.guard import Refusal, Scope

Headers = list[tuple[bytes, bytes]]

VERSIONS = ("1.1", "1.0")
_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Framing(NamedTuple):
    body_bytes: int | None  # None: chunked
    expects_continue: bool


def request_framing(version: str, headers: Headers) -> Framing:
    """Return how the body of the request comes. Raises Refusal for a head that llhttp lets pass and we do not."""
    if version not in VERSIONS:
        raise Refusal(505, "unsupported_version", f"HTTP/{version} is not spoken here.")
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _ONCE:
            if name in found:
                raise Refusal(400, "malformed_request", f"The request has more than one '{name.decode().title()}'.")
            found[name] = value
    if version == "1.1" and b"host" not in found:
        raise Refusal(400, "malformed_request", "The request has no 'Host'.")
    expects_continue = version == "1.1" and found.get(b"expect", b"").lower() == b"100-continue"
    coding = found.get(b"transfer-encoding")
    if coding is None:
        return Framing(int(found.get(b"content-length", 0)), expects_continue)
    if version == "1.0":
        raise Refusal(400, "malformed_request", "HTTP/1.0 knows no 'Transfer-Encoding'.")
    if coding.lower() != b"chunked":
        raise Refusal(501, "unsupported_coding", "The only 'Transfer-Encoding' that is spoken here is chunked.")
    return Framing(None, expects_continue)


def request_scope(
    method: str,
    target: bytes,
    version: str,
    headers: Headers,
    client: tuple[str, int] | None,
    server: tuple[str, int] | None,
    state: dict[str, Any],
) -> Scope:
    """Return what Hypercorn would say of the same request, key by key."""
    raw_path, _, query = target.partition(b"?")
    path = raw_path.decode("ascii")
    return {
        "type": "http",
        "http_version": version,
        "asgi": {"spec_version": "2.1", "version": "3.0"},
        "method": method,
        "scheme": "http",
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": client,
        "server": server,
        "state": state.copy(),
        "extensions": {},
    }


def address(family: int, name: Any) -> tuple[str, int] | None:
    """Return host and port; a Unix socket has none."""
    return (name[0], name[1]) if name and family in (socket.AF_INET, socket.AF_INET6) else None


def response_head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the status line, `headers` and the date. Raises ValueError for what would not be one header a line."""
    lines = [_status_line(status)]
    lines += [_field(name) + value for name, value in headers]
    lines.append(_date(int(time.time())))
    head = b"\r\n".join(lines)
    if head.count(b"\r") != len(lines) - 1 or head.count(b"\n") != len(lines) - 1 or b"\0" in head:
        raise ValueError("A response header holds CR, LF or NUL.")
    return head + b"\r\n\r\n"


@lru_cache
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status:03d} {_PHRASES.get(status, '')}".encode()


@lru_cache(maxsize=1024)
def _field(name: bytes) -> bytes:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a response header.")
    return name.lower() + b": "


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return b"date: " + formatdate(second, usegmt=True).encode()
