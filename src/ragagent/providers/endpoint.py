"""An HTTP endpoint of a model: one client, one way to fail, one way to try again.

Foreign errors become `Upstream` here and nowhere else. Messages name the host and the status, never the key, nor what
was asked. What may pass (no connection, a timeout, 429, a server error) is `Transient`, and is tried again; a key that
is refused, or a request that is wrong, is not.
"""

from __future__ import annotations

import datetime
import email.utils
import json
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import httpx

from ragagent.errors import Upstream

_CONNECT_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 8.0
_MAX_RETRY_AFTER_SECONDS = 10.0  # who asks for more gets no answer today: better to say so now
_MAX_REASON_CHARS = 200


T = TypeVar("T")


class Transient(Upstream):
    """It failed in a way that may pass: worth another try."""


class Refused(Upstream):
    """It understood the request and will not do it: another try would be refused as well."""

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Endpoint:
    """Posts JSON to one base URL. Connects on the first call, in the event loop that makes it: never before a fork."""

    def __init__(self, base_url: str, api_key: str, *, timeout_seconds: float, retries: int) -> None:
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._timeout = httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, _CONNECT_SECONDS))
        self._seconds = timeout_seconds
        self._retries = retries
        self._client: httpx.AsyncClient | None = None
        self.host = httpx.URL(base_url).netloc.decode()

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    @asynccontextmanager
    async def post(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[httpx.Response]:
        """Open the reply to a request, its headers read and its status 200. Raises Upstream, also while it is read."""
        try:
            async with self._opened().stream("POST", self._base_url + path, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise await self._refused(response)
                yield response
        except httpx.TimeoutException as exc:
            raise Transient(f"The model endpoint {self.host} did not answer within {self._seconds:g} s.") from exc
        except httpx.ConnectError as exc:
            raise Transient(f"The model endpoint {self.host} cannot be reached.") from exc
        except httpx.TransportError as exc:
            raise Transient(f"The model endpoint {self.host} broke off the connection.") from exc
        except httpx.HTTPError as exc:
            raise Upstream(f"The model endpoint {self.host} sent no valid reply.") from exc

    async def retried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what `attempt` returns, trying again, after a pause, what failed in a way that may pass."""
        for number in range(self._retries):
            try:
                return await attempt()
            except Transient as exc:
                if (exc.retry_after or 0.0) > _MAX_RETRY_AFTER_SECONDS:
                    raise
                await anyio.sleep(exc.retry_after if exc.retry_after is not None else _pause(number))
        return await attempt()

    def error_event(self, error: Any) -> Upstream:
        """Return what an `error` object in a reply means. Its text is the endpoint's, but never holds our key."""
        message = error.get("message") if isinstance(error, dict) else error
        return Upstream(f"The model endpoint {self.host} reported an error{self._quoted(message)}.")

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
            self._client = httpx.AsyncClient(headers=headers, timeout=self._timeout)
        return self._client

    async def _refused(self, response: httpx.Response) -> Upstream:
        status = response.status_code
        if status in (401, 403):
            # Its message may repeat part of the key.
            return Upstream(f"The model endpoint {self.host} rejected our credentials ({status}).")
        if status == 429 or status >= 500:
            waits = _retry_after(response.headers.get("retry-after"))
            return Transient(f"The model endpoint {self.host} answered {status}.", retry_after=waits)
        reason = _reason(await response.aread())
        return Refused(f"The model endpoint {self.host} answered {status}{self._quoted(reason)}.", status, reason)

    def _quoted(self, message: Any) -> str:
        if not isinstance(message, str) or not message.strip():
            return ""
        text = message.replace(self._api_key, "***") if self._api_key else message
        return ": " + " ".join(text.split())[:_MAX_REASON_CHARS].rstrip(".")


def _reason(body: bytes) -> str:
    """Return the message of an error reply: OpenAI's envelope, or what servers like it send instead."""
    try:
        found = json.loads(body)
        error = found.get("error", found) if isinstance(found, dict) else found
        message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    except ValueError:
        return ""
    return message if isinstance(message, str) else ""


def _pause(number: int) -> float:
    """Return a pause that doubles and is drawn from its upper half, so that workers do not come back together."""
    return min(_FIRST_PAUSE_SECONDS * 2.0**number, _LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)


def _retry_after(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, as a number or as a date; None where it says neither."""
    if header is None:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", header.strip()):
        return float(header)
    try:
        date = email.utils.parsedate_to_datetime(header)
        return max((date - datetime.datetime.now(datetime.UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):  # TypeError: a date without a zone
        return None
