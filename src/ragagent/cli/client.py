"""The server, as the commands see it: JSON in, JSON out, and every failure one of our errors with a sentence to act on.

The only file here that touches HTTP. A request that finds the server busy (429, 503) or its connection cut (a worker
that a reload retired) is tried again; the server takes uploads and attachments twice without storing them twice.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import click
import httpx

from ragagent import __version__
from ragagent.cli.output import Command
from ragagent.errors import RagagentError, Unavailable

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT = httpx.Timeout(120.0, connect=5.0)  # a model may think long before its first word
RETRIES = 3
BUSY = (429, 503)
LONGEST_PAUSE_SECONDS = 10.0

JSON = dict[str, Any]


class Unreachable(Unavailable):
    """Nobody listens there: what has not been sent yet need not be tried."""


class Client:
    """One server. Usable from several threads at a time."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")  # People paste the base_url of their OpenAI client.
        headers = {"user-agent": f"ragagent-cli/{__version__}"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        # A proxy from the environment cannot reach this machine's own loopback, and answers for it with a page.
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=TIMEOUT, trust_env=not _is_local(self.url)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> JSON:
        return self._answer(self._sent("GET", path, params=params))

    def post(self, path: str, body: JSON) -> JSON:
        return self._answer(self._sent("POST", path, json=body))

    def delete(self, path: str) -> JSON:
        return self._answer(self._sent("DELETE", path))

    def upload(self, path: str, filename: str, content: Any, **fields: str) -> JSON:
        """Send a form with one file, read from `content` as it goes; a retry reads it again from its beginning."""
        return self._answer(self._sent("POST", path, files={"file": (filename, content)}, data=fields))

    def items(self, path: str, **params: Any) -> Iterator[JSON]:
        """Yield every item of a list, oldest first, page by page."""
        cursor: JSON = {}
        while True:
            page = self.get(path, limit=100, order="asc", **params, **cursor)
            yield from page["data"]
            if not page["has_more"]:
                return
            cursor = {"after": page["last_id"]}

    def events(self, path: str, body: JSON) -> Iterator[JSON]:
        """Yield the events of a stream. Raises the server's error also when it comes in mid-stream."""
        with self._translated(), self._http.stream("POST", path, json=body) as response:
            if response.is_error:
                response.read()
                raise self._error(response)
            for data in _data_of(response.iter_bytes()):
                if data == b"[DONE]":
                    return
                event = json.loads(data)
                if "error" in event:
                    raise _from_envelope(event["error"])
                yield event
        raise Unavailable("The answer was cut off before its end: the server closed the stream.")

    def _sent(self, method: str, path: str, **content: Any) -> httpx.Response:
        """Send until there is an answer that another try cannot better."""
        for attempt in range(RETRIES + 1):
            # What the official client says of a retry, by which the server knows one upload from two.
            headers = {"x-stainless-retry-count": str(attempt)}
            try:
                with self._translated():
                    response = self._http.request(method, path, headers=headers, **content)
            except _Broken:
                if attempt == RETRIES:
                    raise
                time.sleep(0.1 * 2**attempt)
                continue
            is_busy = response.status_code in BUSY and response.headers.get("x-should-retry") != "false"
            if not is_busy or attempt == RETRIES:
                break
            time.sleep(_pause(response, attempt))
        return response

    def _answer(self, response: httpx.Response) -> JSON:
        if response.is_error:
            raise self._error(response)
        found = _json(response)
        if found is None:
            raise RagagentError(f"{response.url} answered with something else than JSON; is it a RAGAgent server?")
        return found

    def _error(self, response: httpx.Response) -> RagagentError:
        envelope = (_json(response) or {}).get("error")
        if not isinstance(envelope, dict) or not isinstance(envelope.get("message"), str):
            return RagagentError(f"{response.url} answered {response.status_code}; is it a RAGAgent server?")
        hint = " (Here: --api-key, or RAGAGENT_API_KEY.)" if response.status_code == 401 else ""
        return _from_envelope({**envelope, "message": envelope["message"] + hint})

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise Unreachable(
                f"No server answers at {self.url}. Start one with 'ragagent serve', or name yours with --url or "
                "RAGAGENT_URL."
            ) from exc
        except httpx.TimeoutException as exc:
            raise Unavailable(f"The server at {self.url} did not answer within {TIMEOUT.read:.0f} seconds.") from exc
        except httpx.TransportError as exc:
            raise _Broken(f"The connection to {self.url} broke: {str(exc) or type(exc).__name__}") from exc


class _Broken(Unavailable):
    pass


def with_client(command: Command) -> Command:
    """Give the command --url, --api-key and the `client` that they name."""

    @click.option(
        "--url", envvar="RAGAGENT_URL", default=DEFAULT_URL, show_default=True, show_envvar=True, metavar="URL"
    )
    @click.option(
        "--api-key", envvar="RAGAGENT_API_KEY", show_envvar=True, metavar="KEY", help="rag_..., where required"
    )
    @functools.wraps(command)
    def run(*args: Any, url: str, api_key: str | None, **kwargs: Any) -> None:
        if not url.startswith(("http://", "https://")) or not _host(url):
            raise click.BadParameter(f"'{url}' is not an http(s) URL.", param_hint="--url")
        with Client(url, api_key) as client:
            command(*args, client=client, **kwargs)

    return run


def segment(name: str) -> str:
    """Return a name or id as one part of a URL's path."""
    if name.strip(".") == "" or "/" in name:
        raise click.UsageError(f"The name '{name}' cannot stand in a URL; use the id, as 'ragagent store ls' shows it.")
    return quote(name, safe="")


def _data_of(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the data of each server-sent event.

    By hand, because httpx's `iter_lines` also ends a line at U+2028 and its like, which stand unescaped in JSON.
    """
    unread = b""
    for piece in pieces:
        *lines, unread = (unread + piece).split(b"\n")
        yield from (line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: "))


def _json(response: httpx.Response) -> JSON | None:
    try:
        found = response.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _from_envelope(error: JSON) -> RagagentError:
    return RagagentError(str(error.get("message")), param=error.get("param"), code=error.get("code"))


def _pause(response: httpx.Response, attempt: int) -> float:
    asked = response.headers.get("retry-after", "")
    return min(float(asked) if asked.isdecimal() else 0.5 * 2**attempt, LONGEST_PAUSE_SECONDS)


def _host(url: str) -> str:
    try:
        return httpx.URL(url).host
    except httpx.InvalidURL:
        return ""


def _is_local(url: str) -> bool:
    host = _host(url)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
