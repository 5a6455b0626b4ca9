"""List pages, acknowledgements and the headers of a read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams
from starlette.requests import Request

from application import TEXTS, Api, running
from ragagent.api.replies import listing, note_timings, page_of, read_headers, seq_header
from ragagent.errors import Invalid
from ragagent.types import Caller

LONG = "9" * 5_000  # int() raises on it


def request(query: str = "") -> Request:
    return Request({"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": query.encode()})


def asked(**cursors: str) -> Request:
    return request(str(QueryParams(cursors)))


# Pages


def test_without_cursors_a_page_is_the_newest_twenty() -> None:
    page = page_of(request())
    assert (page.limit - 1, page.after, page.before, page.order) == (20, None, None, "desc")


@pytest.mark.parametrize("limit", ["0", "-1", "101", "1.5", "1e1", "", " 5", "²", "x", LONG])
def test_a_limit_out_of_range_is_refused_in_few_words(limit: str) -> None:
    with pytest.raises(Invalid) as refused:
        page_of(asked(limit=limit))
    assert refused.value.param == "limit"
    assert len(refused.value.message) < 200


@pytest.mark.parametrize("order", ["", "up", "ASC", LONG])
def test_an_order_that_is_none_is_refused_in_few_words(order: str) -> None:
    with pytest.raises(Invalid) as refused:
        page_of(asked(order=order))
    assert refused.value.param == "order"
    assert len(refused.value.message) < 200


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30), st.text(max_size=10))
def test_any_query_gives_a_page_or_a_refusal(limit: str, after: str, before: str, order: str) -> None:
    try:
        page = page_of(asked(limit=limit, after=after, before=before, order=order), largest=50)
    except Invalid as exc:
        assert exc.param in ("limit", "order")
        return
    assert 2 <= page.limit <= 51
    assert page.order == order


def test_an_empty_cursor_is_none() -> None:
    page = page_of(asked(after="", before=""))
    assert (page.after, page.before) == (None, None)


@given(st.integers(1, 10), st.integers(0, 11), st.sampled_from(["", "after", "before", "both"]))
def test_a_page_holds_what_was_asked_for_and_says_if_there_is_more(limit: int, found: int, cursor: str) -> None:
    """A query looks for one row more than asked for; which end that one stands at depends on the cursor."""
    cursors = {name: "x" for name in ("after", "before") if cursor in (name, "both")}
    page = page_of(asked(limit=str(limit), **cursors))
    rows = [{"id": str(number)} for number in range(min(found, page.limit))]
    shown = json.loads(bytes(listing(rows, page).body))
    assert shown["object"] == "list"
    assert shown["has_more"] == (len(rows) > limit)
    assert len(shown["data"]) == min(len(rows), limit)
    assert shown["data"] == (rows[-limit:] if cursor == "before" else rows[:limit])
    ids = [row["id"] for row in shown["data"]]
    assert (shown["first_id"], shown["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))


@pytest.mark.anyio
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7])
async def test_walking_forwards_and_backwards_sees_each_item_once(api: Api, order: str, limit: int) -> None:
    created = [await api.store(f"store {number}") for number in range(5)]
    expected = created if order == "asc" else created[::-1]

    async def page(**cursor: str) -> dict[str, Any]:
        shown: dict[str, Any] = await api.json(
            "GET", "/v1/vector_stores", params={"limit": limit, "order": order, **cursor}
        )
        return shown

    forwards, shown = [], await page()
    while True:
        forwards += [row["id"] for row in shown["data"]]
        if not shown["has_more"]:
            break
        shown = await page(after=shown["last_id"])
    assert forwards == expected

    backwards, shown = [expected[-1]], await page(before=expected[-1])
    while True:
        backwards = [row["id"] for row in shown["data"]] + backwards
        if not shown["has_more"]:
            break
        shown = await page(before=shown["first_id"])
    assert backwards == expected


# Writes and reads


def test_a_write_says_its_place_and_when_to_look_again() -> None:
    assert seq_header(7) == {"x-ragagent-seq": "7", "openai-poll-after-ms": "20"}


@pytest.mark.anyio
async def test_a_write_that_is_not_visible_in_time_is_acknowledged_with_202(tmp_path: Path) -> None:
    async with running(tmp_path, indexing=False, RAGAGENT_INGEST__WAIT_SECONDS="0.05") as api:
        await api.store()
        body = {"store": "facts", "documents": [{"external_id": "a", "text": "A text."}]}
        reply = await api.http.post("/v1/ragagent/documents", json=body)
        assert reply.status_code == 202
        assert int(reply.headers["x-ragagent-seq"]) == reply.json()["seq"] > 0
        assert reply.json()["data"][0]["status"] == "in_progress"


@pytest.mark.anyio
async def test_a_read_waits_for_the_write_it_asks_for(api: Api) -> None:
    await api.store(**TEXTS)
    seq = (await api.http.post("/v1/vector_stores", json={})).headers["x-ragagent-seq"]
    # The counter runs over all stores: a later write to another one is nothing to wait for.
    with anyio.fail_after(5):
        reply = await api.http.post(
            "/v1/vector_stores/facts/search", json={"query": "bridge"}, headers={"x-ragagent-min-seq": seq}
        )
    assert reply.json()["data"]


@pytest.mark.anyio
@pytest.mark.parametrize("seq", ["", "x", "-1", "1.0", LONG])
async def test_a_place_that_is_none_is_refused_in_few_words(api: Api, seq: str) -> None:
    await api.store()
    error = await api.refusal(
        400, "POST", "/v1/vector_stores/facts/search", json={"query": "x"}, headers={"x-ragagent-min-seq": seq}
    )
    assert "x-ragagent-min-seq" in error["message"]
    assert len(error["message"]) < 200


@pytest.mark.anyio
async def test_a_read_that_cannot_see_the_write_in_time_says_when_to_come_again(tmp_path: Path) -> None:
    async with running(tmp_path, indexing=False, RAGAGENT_INGEST__WAIT_SECONDS="0.05") as api:
        for name in ("one", "two"):
            await api.store(name)
            body = {"store": name, "documents": [{"external_id": "a", "text": "A text."}]}
            await api.http.post("/v1/ragagent/documents", json=body)
        reply = await api.http.post(
            "/v1/vector_stores/two/search", json={"query": "text"}, headers={"x-ragagent-min-seq": "99"}
        )
        assert reply.status_code == 503
        assert reply.headers["retry-after"] == "1"


@pytest.mark.anyio
async def test_all_stores_of_a_read_share_one_wait(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two", "three"):
        await api.store(name, **TEXTS)
    waits: list[float] = []

    async def visible(store_id: str, seq: int, seconds: float) -> bool:
        waits.append(seconds)
        await anyio.sleep(0.02)
        return True

    monkeypatch.setattr(api.services.ingest, "visible", visible)
    body = {"model": "ragagent", "messages": [{"role": "user", "content": "bridge"}]}
    await api.json("POST", "/v1/chat/completions", json=body, headers={"x-ragagent-min-seq": "1"})
    assert len(waits) == 3
    assert waits[0] <= api.config.ingest.wait_seconds
    assert waits == sorted(waits, reverse=True)
    assert waits[2] < waits[0] - 0.03


@pytest.mark.anyio
async def test_a_read_says_which_generation_of_each_store_it_saw(api: Api) -> None:
    ids = [await api.store(name, **TEXTS) for name in ("one", "two")]
    stores = await api.services.catalog.stores_named(Caller(), ids)
    assert read_headers("l1", {ids[1]: 4}, stores) == {"x-ragagent-cache": "l1", "x-ragagent-generation": "0,4"}
    assert read_headers("miss", {}, []) == {"x-ragagent-cache": "miss", "x-ragagent-generation": "0"}


def test_timings_gather_under_the_request() -> None:
    one = request()
    note_timings(one, {"embed": 1.0})
    note_timings(one, {"search": 2.0})
    assert one.scope["state"]["timings"] == {"embed": 1.0, "search": 2.0}
