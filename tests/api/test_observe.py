"""One request through a real Starlette application, and what of it arrives in headers, log and collector."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from otlp_collector import Collector, Span, otlp_collector
from ragagent import names, telemetry
from ragagent.api.observe import Observe
from ragagent.config import Telemetry

pytestmark = pytest.mark.anyio

GENERATED = re.compile(r"req_[0-9a-f]{32}")
CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def show(request: Request) -> Response:
    request.state.timings["embed"] = 0.25
    request.state.timings["dense"] = 1.5
    with telemetry.span(names.QUERY):
        return PlainTextResponse(request.state.request_id)


async def stream(request: Request) -> Response:
    async def pieces() -> AsyncIterator[str]:
        yield "a"
        request.state.timings["late"] = 1.0
        yield "b"

    return StreamingResponse(pieces())


async def refuse(request: Request) -> Response:
    return Response(status_code=503)


async def fail(request: Request) -> Response:
    raise LookupError("my secret")


async def alone(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("mounted")(scope, receive, send)


def application() -> ASGIApp:
    return Starlette(
        routes=[
            Route("/v1/files/{file_id:path}", show),
            Route("/stream", stream),
            Route("/refuse", refuse),
            Route("/fail", fail),
            Mount("/inner", routes=[Route("/items/{item}", show)]),
            Mount("/ui", app=alone),
        ]
    )


def client(app: ASGIApp) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def ask(path: str, method: str = "GET", headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
    async with client(Observe(application(), **options)) as http:
        return await http.request(method, path, headers=headers)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with otlp_collector() as collector:
        telemetry.init(Telemetry(endpoint=collector.endpoint), role="worker", slot=0)
        yield collector
        telemetry.shutdown()
        assert collector.undocumented() == set()


async def sent(collector: Collector) -> Span:
    """The one server span, after everything has been sent."""
    await anyio.to_thread.run_sync(telemetry.shutdown)
    (span,) = [span for span in collector.spans if span.kind == "server"]
    return span


# --- Request ids and headers -----------------------------------------------------------------------------------------


async def test_a_request_without_id_gets_one_that_the_application_sees_too() -> None:
    response = await ask("/v1/files/f")
    assert GENERATED.fullmatch(response.headers["x-request-id"])
    assert response.text == response.headers["x-request-id"]


@pytest.mark.parametrize("sound", ["abc", "A.b_c-9", "x" * 128])
async def test_a_clients_sound_id_is_kept(sound: str) -> None:
    response = await ask("/v1/files/f", headers={"x-request-id": sound})
    assert response.headers["x-request-id"] == sound


@pytest.mark.parametrize("unsound", ["", "x" * 129, "a b", "a/b", "é", "a\n", 'a"'])
async def test_any_other_id_is_replaced(unsound: str) -> None:
    scope_headers = [(b"x-request-id", unsound.encode())]
    messages = await exchange(Observe(application()), scope_headers)
    assert GENERATED.fullmatch(dict(messages[0]["headers"])[b"x-request-id"].decode())


async def test_two_requests_share_no_state_even_if_the_server_hands_out_one() -> None:
    shared: dict[str, Any] = {"app": "value"}
    seen: list[dict[str, Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["state"])
        await PlainTextResponse("")(scope, receive, send)

    for _ in range(2):
        await exchange(Observe(app), [], state=shared)
    assert shared == {"app": "value"}
    assert [state["app"] for state in seen] == ["value", "value"]
    assert seen[0]["request_id"] != seen[1]["request_id"]
    assert seen[0]["timings"] is not seen[1]["timings"]


async def test_server_timing_tells_the_stages_that_had_ended_when_the_answer_began() -> None:
    response = await ask("/v1/files/f")
    assert re.fullmatch(r"total;dur=\d+\.\d\d, embed;dur=0\.25, dense;dur=1\.50", response.headers["server-timing"])
    response = await ask("/stream")
    assert re.fullmatch(r"total;dur=\d+\.\d\d", response.headers["server-timing"])


@pytest.mark.parametrize(
    ("path", "status"), [("/nowhere", 404), ("/fail", 500), ("/refuse", 503), ("/stream", 200), ("/ui/x", 200)]
)
async def test_every_answer_has_both_headers(path: str, status: int) -> None:
    response = await ask(path)
    assert response.status_code == status
    assert GENERATED.fullmatch(response.headers["x-request-id"])
    assert response.headers["server-timing"].startswith("total;dur=")


# --- Spans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/v1/files/secret/name", "GET /v1/files/{file_id}"),
        ("POST", "/v1/files/secret", "POST /v1/files/{file_id}"),
        ("GET", "/inner/items/secret", "GET /inner/items/{item}"),
        ("GET", "/ui/secret", "GET /ui"),
        ("GET", "/secret", "GET"),
        ("BREW", "/refuse", "HTTP /refuse"),
    ],
    ids=["route", "wrong method", "mounted route", "mounted application", "no route", "unknown method"],
)
async def test_spans_are_named_by_route_and_never_by_path(
    collector: Collector, method: str, path: str, name: str
) -> None:
    await ask(path, method)
    assert (await sent(collector)).name == name


async def test_a_span_describes_its_request_without_what_people_wrote(collector: Collector) -> None:
    response = await ask("/v1/files/f?question=my+secret", headers={"user-agent": "openai/3"})
    span = await sent(collector)
    assert span.attributes == {
        names.HTTP_METHOD: "GET",
        names.HTTP_ROUTE: "/v1/files/{file_id}",
        names.HTTP_STATUS: 200,
        names.URL_SCHEME: "http",
        names.URL_PATH: "/v1/files/f",
        names.SERVER_ADDRESS: "test",
        names.CLIENT_ADDRESS: "127.0.0.0",
        names.NETWORK_PROTOCOL_VERSION: "1.1",
        names.USER_AGENT: "openai/3",
        names.REQUEST_ID: response.headers["x-request-id"],
    }
    assert collector.tree(span.trace_id) == [("GET /v1/files/{file_id}", [("ragagent.query", [])])]


@pytest.mark.parametrize(
    ("address", "network"),
    [("192.0.2.77", "192.0.2.0"), ("2001:db8:1:2ff::7", "2001:db8:1:200::"), ("unix:", None)],
)
async def test_a_client_is_known_by_its_network_alone(collector: Collector, address: str, network: str | None) -> None:
    await exchange(Observe(application()), [], client=(address, 1))
    assert (await sent(collector)).attributes.get(names.CLIENT_ADDRESS) == network


async def test_a_5xx_marks_the_span_and_a_4xx_does_not(collector: Collector) -> None:
    await ask("/nowhere")
    await ask("/refuse")
    await anyio.to_thread.run_sync(telemetry.shutdown)
    assert not collector.named("GET")[0].is_error
    refused = collector.named("GET /refuse")[0]
    assert refused.is_error
    assert refused.attributes[names.ERROR_TYPE] == "503"


async def test_an_exception_that_escapes_is_recorded_and_raised_again(collector: Collector) -> None:
    with pytest.raises(LookupError):
        await exchange(Observe(application()), [], path="/fail")
    span = await sent(collector)
    assert span.is_error
    assert span.attributes[names.ERROR_TYPE] == "LookupError"
    assert span.attributes[names.HTTP_STATUS] == 500
    assert span.message == ""


async def test_what_raises_before_it_answers_counts_as_the_500_that_the_server_sends(collector: Collector) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await exchange(Observe(broken), [])
    assert (await sent(collector)).attributes[names.HTTP_STATUS] == 500
    assert collector.total("http.server.request.duration", {names.ERROR_TYPE: "LookupError"}) == 1


async def test_a_cancelled_request_is_recorded_and_is_no_error(collector: Collector) -> None:
    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep_forever()

    with anyio.move_on_after(0.01):
        await exchange(Observe(endless), [])
    span = await sent(collector)
    assert not span.is_error
    assert span.attributes[names.CANCELLED] is True
    assert names.HTTP_STATUS not in span.attributes
    assert collector.total("http.server.request.duration", {names.ERROR_TYPE: "cancelled"}) == 1
    assert collector.total("http.server.active_requests") == 0


async def test_a_strangers_traceparent_is_linked_and_a_trusted_one_continued(collector: Collector) -> None:
    await ask("/refuse", headers={"traceparent": CLIENT})
    await ask("/stream", headers={"traceparent": CLIENT}, trust_traceparent=True)
    await anyio.to_thread.run_sync(telemetry.shutdown)
    (stranger,), (trusted,) = collector.named("GET /refuse"), collector.named("GET /stream")
    assert (stranger.parent_id, len(stranger.links)) == ("", 1)
    assert trusted.trace_id == CLIENT.split("-")[1]


# --- Metrics ---------------------------------------------------------------------------------------------------------


async def test_durations_are_counted_by_route_method_and_status(collector: Collector) -> None:
    for path in ("/v1/files/a", "/v1/files/b", "/refuse", "/nowhere"):
        await ask(path)
    await anyio.to_thread.run_sync(telemetry.shutdown)
    common = {names.HTTP_METHOD: "GET", names.URL_SCHEME: "http", names.NETWORK_PROTOCOL_VERSION: "1.1"}
    counted = [(point.attributes, point.count) for point in collector.of("http.server.request.duration")]
    assert sorted(counted, key=str) == sorted(
        [
            ({**common, names.HTTP_ROUTE: "/v1/files/{file_id}", names.HTTP_STATUS: 200}, 2),
            ({**common, names.HTTP_ROUTE: "/refuse", names.HTTP_STATUS: 503, names.ERROR_TYPE: "503"}, 1),
            ({**common, names.HTTP_STATUS: 404}, 1),
        ],
        key=str,
    )


async def test_a_thousand_invented_methods_and_paths_are_one_series(collector: Collector) -> None:
    app = Observe(application())
    for number in range(1000):
        await exchange(app, [], path=f"/{number}", method=f"M{number}")
    await anyio.to_thread.run_sync(telemetry.shutdown)
    (point,) = collector.of("http.server.request.duration")
    assert (point.count, point.attributes[names.HTTP_METHOD]) == (1000, "_OTHER")


async def test_a_streamed_answer_is_active_until_its_last_byte(collector: Collector) -> None:
    active: list[float] = []
    go_on = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def pieces() -> AsyncIterator[str]:
            yield "a"
            await go_on.wait()
            yield "b"

        await StreamingResponse(pieces())(scope, receive, send)

    telemetry.shutdown()
    telemetry.init(Telemetry(endpoint=collector.endpoint, metrics_seconds=0.1), role="worker", slot=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(exchange, Observe(app), [])
        await anyio.to_thread.run_sync(
            collector.wait_until, lambda: collector.total("http.server.active_requests") == 1
        )
        active.append(collector.total("http.server.request.duration"))
        go_on.set()
    await anyio.to_thread.run_sync(telemetry.shutdown)
    active.append(collector.total("http.server.request.duration"))
    assert active == [0, 1]
    assert collector.total("http.server.active_requests") == 0


# --- Access log ------------------------------------------------------------------------------------------------------


async def test_the_access_log_has_one_line_per_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ragagent.access")
    response = await ask("/v1/files/f?question=my+secret", access_log=True)
    (record,) = [record for record in caplog.records if record.name == "ragagent.access"]
    request_id = re.escape(response.headers["x-request-id"])
    assert re.fullmatch(rf"GET /v1/files/f 200 \d+\.\dms {request_id}", record.getMessage())


async def test_no_client_can_write_a_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ragagent.access")
    await ask("/a%0A%1B%5B2JGET%20/admin%20200%E4%BD%A0", access_log=True)
    await exchange(Observe(application(), access_log=True), [], path="/" + "x" * 10_000, method="A\nB")
    first, second = (record.getMessage() for record in caplog.records if record.name == "ragagent.access")
    assert first.startswith("GET /a%0A%1B%5B2JGET%20/admin%20200%E4%BD%A0 404 ")
    assert second.startswith("_OTHER /xxx")
    assert len(second) < 600


async def test_the_access_log_tells_of_what_failed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ragagent.access")
    await ask("/fail", access_log=True)
    assert " /fail 500 " in caplog.text


async def test_the_access_log_is_off_by_default(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ragagent.access")
    await ask("/stream")
    assert "ragagent.access" not in [record.name for record in caplog.records]


# --- Anything else ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_other_scopes_pass_untouched(kind: str) -> None:
    passed: list[tuple[Scope, Callable[..., Any], Callable[..., Any]]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append((scope, receive, send))

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    scope: Scope = {"type": kind}
    await Observe(app)(scope, receive, send)
    assert passed == [(scope, receive, send)]
    assert scope == {"type": kind}


async def exchange(
    app: ASGIApp,
    headers: list[tuple[bytes, bytes]],
    path: str = "/v1/files/f",
    method: str = "GET",
    **scope: Any,
) -> list[Message]:
    """Call the application as a server would, with what no well-behaved client sends; return what it sent."""
    messages: list[Message] = []
    requests = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if requests:
            return requests.pop()
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        messages.append(message)

    await app(
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
            **scope,
        },
        receive,
        send,
    )
    return messages


async def test_a_probe_passes_and_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ragagent.access")
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/refuse",
        "headers": [],
        "query_string": b"",
        "client": None,
    }
    await Observe(application(), access_log=True)(scope, receive, send)
    assert sent[0]["status"] == 503
    assert caplog.text == ""
