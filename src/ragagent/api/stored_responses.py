"""`/v1/responses/{id}`: responses that were kept, what they were asked, and their end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ragagent.api.replies import JSON, listing, page_of
from ragagent.api.services import caller, services
from ragagent.errors import Invalid, NotFound
from ragagent.types import Page, Turn


def packed(response: JSON, items: Sequence[JSON]) -> bytes:
    """Return what is kept with a turn: the response as its client was told it, and the items of its input.

    What the search found is left out: a document's text must not outlive the document.
    """
    output = [{**item, "results": None} if item["type"] == "file_search_call" else item for item in response["output"]]
    kept = {"response": {**response, "output": output}, "input": items}
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()


async def show(request: Request) -> JSONResponse:
    asked = request.query_params
    if asked.get("stream", "false") != "false":
        raise Invalid("'stream' is not supported here: a response is streamed as it is made.", param="stream")
    if "file_search_call.results" in asked.getlist("include[]"):
        raise Invalid(
            "'include' has value 'file_search_call.results'; they are told when a response is made, and not kept.",
            param="include",
        )
    turn = await _turn(request)
    return JSONResponse(json.loads(turn.payload)["response"])


async def delete(request: Request) -> JSONResponse:
    turn = await _turn(request)
    with _known(request):
        await services(request).conversations.delete(caller(request), turn.id)
    return JSONResponse({"id": turn.id, "object": "response", "deleted": True})


async def cancel(request: Request) -> JSONResponse:
    turn = await _turn(request)
    raise Invalid(f"Response '{turn.id}' is finished; only one that is made in the background can be cancelled.")


async def input_items(request: Request) -> JSONResponse:
    """List what the answer was made from: the input, and before it the responses that it continues."""
    page = page_of(request)
    last = await _turn(request)
    with _known(request):
        turns = await services(request).conversations.chain(caller(request), last.id)
    items = [item for turn in turns for item in _items(turn, with_output=turn.id != last.id)]
    return listing(_within(items, page), page)


async def _turn(request: Request) -> Turn:
    """Return the turn that the path names. Raises NotFound."""
    with _known(request) as response_id:
        turn = await services(request).conversations.get(caller(request), response_id)
        if "response" not in json.loads(turn.payload):
            raise NotFound("A turn of a chat.")
        return turn


@contextmanager
def _known(request: Request) -> Iterator[str]:
    """Give the id of the path; say of a turn that is not there what it is to the client."""
    response_id: str = request.path_params["response_id"]
    try:
        yield response_id
    except NotFound as exc:
        raise NotFound(f"Response with id '{response_id:.80}' not found.", param="response_id") from exc


def _items(turn: Turn, *, with_output: bool) -> list[JSON]:
    kept = json.loads(turn.payload)
    return [*kept.get("input", ()), *(kept.get("response", {}).get("output", ()) if with_output else ())]


def _within(items: Sequence[JSON], page: Page) -> Sequence[JSON]:
    """Return the items of a page, by OpenAI's cursors; an unknown cursor gives an empty page."""
    ordered = list(items) if page.order == "asc" else list(reversed(items))
    places = {item["id"]: place for place, item in enumerate(ordered)}
    first = places.get(page.after, len(ordered)) + 1 if page.after else 0
    end = places.get(page.before, 0) if page.before else len(ordered)
    wanted = ordered[first:end]
    backwards = page.before is not None and page.after is None
    return wanted[-page.limit :] if backwards else wanted[: page.limit]


routes = [
    Route("/v1/responses/{response_id}", show),
    Route("/v1/responses/{response_id}", delete, methods=["DELETE"]),
    Route("/v1/responses/{response_id}/cancel", cancel, methods=["POST"]),
    Route("/v1/responses/{response_id}/input_items", input_items),
]
