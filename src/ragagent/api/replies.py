"""What several resources' replies share: list pages, write acknowledgements, the headers of a read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from ragagent.api.services import Services, caller, services
from ragagent.engine.ingest import Written
from ragagent.errors import Invalid, Unavailable
from ragagent.types import Page, VectorStore

JSON = dict[str, Any]

POLL_AFTER_MS = "20"  # how soon the official client looks again at a document that is under way


def page_of(request: Request, *, largest: int = 100, default: int = 20) -> Page:
    """Return the cursors of a list request. Raises Invalid."""
    asked = request.query_params
    order = asked.get("order", "desc")
    if order not in ("asc", "desc"):
        raise Invalid(f"'order' has value '{order:.80}'; it must be asc or desc.", param="order")
    given = asked.get("limit", str(default))
    limit = _whole(given)
    if limit is None or not 1 <= limit <= largest:
        raise Invalid(f"'limit' has value '{given:.80}'; it must be a whole number from 1 to {largest}.", param="limit")
    # One more than asked for tells whether there is another page. An empty cursor is none.
    return Page(limit + 1, asked.get("after") or None, asked.get("before") or None, "asc" if order == "asc" else "desc")


def _whole(text: str) -> int | None:
    """Return the number, None for what is none. No int64 has more digits, and int() raises on thousands of them."""
    return int(text) if text.isdecimal() and len(text) <= 18 else None


def listing(items: Sequence[JSON], page: Page) -> JSONResponse:
    """Return OpenAI's list object. `items` may hold one more than the client asked for."""
    wanted = page.limit - 1
    backwards = page.before is not None and page.after is None
    data = list(items[-wanted:] if backwards else items[:wanted])
    return JSONResponse(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": len(items) > wanted,
        }
    )


async def acknowledged(request: Request, written: Written, content: JSON) -> JSONResponse:
    """Answer a write once a search can see it, or with 202 when that takes too long. It is on disk either way."""
    app = services(request)
    visible = await app.ingest.visible(written.store, written.seq, app.config.ingest.wait_seconds)
    return JSONResponse(content, 200 if visible else 202, headers=seq_header(written.seq))


def seq_header(seq: int) -> Mapping[str, str]:
    return {"x-ragagent-seq": str(seq), "openai-poll-after-ms": POLL_AFTER_MS}


async def freshness(request: Request, app: Services, stores: Sequence[VectorStore]) -> list[VectorStore]:
    """Hold a read back until it can see what `x-ragagent-min-seq` asks for; return the stores as they are then.

    Raises Invalid, Unavailable.
    """
    asked = request.headers.get("x-ragagent-min-seq")
    if asked is None:
        return list(stores)
    seq = _whole(asked)
    if seq is None:
        raise Invalid(f"Header 'x-ragagent-min-seq' has value '{asked:.80}'; it must be a whole number.")
    deadline = time.monotonic() + app.config.ingest.wait_seconds  # for all stores together
    for store in stores:
        # The counter runs over all stores: this one need not go beyond its own last write.
        needed = min(seq, store.seq)
        if not await app.ingest.visible(store, needed, deadline - time.monotonic()):
            shown = await app.catalog.visible_seq(store.id)
            raise Unavailable(
                f"Vector store '{store.id}' does not show write {needed} yet; it shows {shown}.", retry_after=1
            )
    # Read again: while we waited, another edition of a store may have become the one that is searched.
    return await app.catalog.stores_named(caller(request), [store.id for store in stores])


def read_headers(tier: str, generations: Mapping[str, int], stores: Sequence[VectorStore]) -> Mapping[str, str]:
    shown = ",".join(str(generations.get(store.id, 0)) for store in stores)
    return {"x-ragagent-cache": tier, "x-ragagent-generation": shown or "0"}


def note_timings(request: Request, timings: Mapping[str, float]) -> None:
    """Leave the stages' milliseconds for the `server-timing` header."""
    request.scope.setdefault("state", {}).setdefault("timings", {}).update(timings)
