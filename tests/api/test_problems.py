"""Every failure as a status and OpenAI's envelope; a bug as a 500 that says nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import httpx
import openai
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from ragagent import errors, names, telemetry
from ragagent.api.problems import RETRYABLE, STATUS, Problems, body, http_exception, status_of
from ragagent.errors import RagagentError

pytestmark = pytest.mark.anyio

EXPECTED = {
    errors.RagagentError: 500,
    errors.Invalid: 400,
    errors.TooLarge: 413,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Limited: 429,
    errors.OverQuota: 429,
    errors.Unavailable: 503,
    errors.Upstream: 502,
    errors.StorageFull: 507,
    errors.Damaged: 500,
    errors.ConfigError: 500,
}


def kinds(root: type[RagagentError] = RagagentError) -> Iterator[type[RagagentError]]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


def raising(error: Exception) -> Starlette:
    async def fail(request: Request) -> Response:
        raise error

    routes = [Route("/fail", fail, methods=["GET", "POST"])]
    handlers = {HTTPException: http_exception}
    return Starlette(routes=routes, middleware=[Middleware(Problems)], exception_handlers=handlers)


async def ask(app: Starlette, path: str = "/fail", **options: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        return await http.get(path, headers=options)


def test_every_class_of_error_has_a_status() -> None:
    assert {kind for kind in kinds() if kind.__module__ == errors.__name__} == set(EXPECTED)
    assert all(kind.code in STATUS for kind in EXPECTED)


def test_a_class_of_some_adapter_has_the_status_of_what_it_is() -> None:
    class Crooked(errors.Invalid):
        code = "crooked"

    assert status_of(Crooked("So.")) == status_of(errors.Invalid("So."))
    assert status_of(Crooked("So.", code="very_crooked")) == status_of(errors.Invalid("So."))


@pytest.mark.parametrize("kind", EXPECTED)
async def test_an_error_is_answered_with_its_status_and_all_that_it_says(kind: type[RagagentError]) -> None:
    reply = await ask(raising(kind("The thing 'x' is so.", param="thing")))
    assert reply.status_code == EXPECTED[kind]
    assert reply.json() == body(kind("The thing 'x' is so.", param="thing"))
    error = reply.json()["error"]
    assert (error["message"], error["param"], error["code"]) == ("The thing 'x' is so.", "thing", kind.code)
    may_help = reply.status_code in RETRYABLE and kind is not errors.OverQuota
    assert ("x-should-retry" in reply.headers) == (not may_help)


@pytest.mark.parametrize("kind", EXPECTED)
async def test_an_error_with_a_code_of_its_own_keeps_the_status_of_its_class(kind: type[RagagentError]) -> None:
    reply = await ask(raising(kind("So.", code="very_special")))
    assert (reply.status_code, reply.json()["error"]["code"]) == (EXPECTED[kind], "very_special")


async def test_a_request_that_came_too_slowly_is_a_408() -> None:
    assert (await ask(raising(errors.Invalid("Slow.", code="request_timeout")))).status_code == 408


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (errors.Invalid, openai.BadRequestError),
        (errors.Unauthorized, openai.AuthenticationError),
        (errors.Forbidden, openai.PermissionDeniedError),
        (errors.NotFound, openai.NotFoundError),
        (errors.Conflict, openai.ConflictError),
        (errors.Limited, openai.RateLimitError),
        (errors.Unavailable, openai.InternalServerError),
    ],
)
async def test_the_official_client_raises_its_own_class_and_keeps_the_message(
    kind: type[RagagentError], expected: type[openai.APIStatusError]
) -> None:
    transport = httpx.ASGITransport(raising(kind("The thing is so.", param="thing")))
    async with httpx.AsyncClient(transport=transport) as http:
        client = openai.AsyncOpenAI(base_url="http://test", api_key="any", http_client=http, max_retries=0)  # type: ignore[arg-type]
        with pytest.raises(expected) as raised:
            await client.get("/fail", cast_to=object)
    assert "The thing is so." in raised.value.message
    assert (raised.value.param, raised.value.code) == ("thing", kind.code)


@pytest.mark.parametrize(("seconds", "header"), [(None, None), (0.0, "0"), (0.2, "1"), (30, "30")])
async def test_retry_after_is_in_whole_seconds_and_never_too_early(seconds: float | None, header: str | None) -> None:
    reply = await ask(raising(errors.Limited("Slow down.", retry_after=seconds)))
    assert reply.headers.get("retry-after") == header


async def test_a_missing_key_says_how_to_send_one() -> None:
    assert (await ask(raising(errors.Unauthorized("No key.")))).headers["www-authenticate"] == "Bearer"


async def test_a_bug_is_a_500_that_keeps_its_text_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    reply = await ask(raising(LookupError("my secret")))
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "internal_error"
    assert "secret" not in reply.text
    assert "my secret" in caplog.text


async def test_the_cause_of_a_failure_is_the_operators_alone(caplog: pytest.LogCaptureFixture) -> None:
    error = errors.Unavailable("The database is busy.")
    error.__cause__ = OSError("/secret/path")
    reply = await ask(raising(error))
    assert "/secret" not in reply.text
    assert "/secret/path" in caplog.text


async def test_a_path_cannot_forge_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    app = raising(LookupError())
    app.router.routes.append(Route("/{rest}", app.routes[0].endpoint))  # type: ignore[attr-defined]
    await ask(app, "/a%0Aforged")
    assert "\nforged" not in caplog.text
    assert "forged" in caplog.text


@pytest.mark.parametrize("error", [errors.Unavailable("Gone."), LookupError("bug"), HTTPException(400)])
async def test_once_the_answer_has_begun_the_error_goes_on(error: Exception) -> None:
    """Cutting the connection is all that still tells the client."""

    async def begin(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    with pytest.raises(type(error)):
        await Problems(begin)({"type": "http", "method": "GET", "path": "/"}, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start"]


async def test_a_client_that_left_is_no_error_and_gets_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def read(request: Request) -> Response:
        return Response(await request.body())

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError("sent")

    app = Starlette(routes=[Route("/", read, methods=["POST"])], middleware=[Middleware(Problems)])
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
    await app(scope, receive, send)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_client_that_leaves_an_answer_is_no_error_either(caplog: pytest.LogCaptureFixture) -> None:
    async def begin(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ClientDisconnect

    async def send(message: Message) -> None:
        assert message["type"] == "http.response.start"

    async def receive() -> Message:
        raise AssertionError

    await Problems(begin)({"type": "http", "method": "GET", "path": "/"}, receive, send)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# What Starlette refuses


@pytest.mark.parametrize("host", ["test", "[", "", "a b", "http://x"])
async def test_an_unknown_path_is_named_whatever_the_host_header_says(host: str) -> None:
    reply = await ask(raising(LookupError()), "/nowhere", host=host)
    assert reply.status_code == 404
    assert reply.json()["error"]["message"] == "There is no '/nowhere' here."


async def test_a_long_path_is_not_sent_back_whole() -> None:
    reply = await ask(raising(LookupError()), "/" + "x" * 10_000)
    assert len(reply.content) < 1_000


async def test_a_method_that_a_path_does_not_take() -> None:
    app = raising(LookupError())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        reply = await http.put("/fail")
    assert reply.status_code == 405
    assert reply.json()["error"]["code"] == "method_not_allowed"
    assert reply.headers["allow"]
    assert reply.headers["x-should-retry"] == "false"


async def test_other_refusals_keep_their_words() -> None:
    reply = await ask(raising(HTTPException(400, "Missing boundary in multipart.")))
    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == "Missing boundary in multipart."


# What is counted


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    seen: list[tuple[str, object]] = []

    def count(metric: names.Metric, amount: int = 1, attributes: telemetry.Attributes | None = None) -> None:
        seen.append((metric.name, dict(attributes or {})))

    monkeypatch.setattr(telemetry, "count", count)
    return seen


Counted = list[tuple[str, object]]


@pytest.mark.parametrize(
    ("error", "metric", "attributes"),
    [
        (errors.Unauthorized("No."), names.AUTH_FAILURES, {names.AUTH_FAILURE: "invalid_api_key"}),
        (errors.Invalid("No.", code="invalid_json"), names.INPUT_REJECTED, {names.INPUT_REJECTION: "invalid_json"}),
    ],
)
async def test_refusals_are_counted_by_their_code(
    counted: Counted, error: RagagentError, metric: names.Metric, attributes: dict[str, str]
) -> None:
    await ask(raising(error))
    assert counted == [(metric.name, attributes)]


async def test_a_failure_of_ours_is_not_counted_as_bad_input(counted: Counted) -> None:
    await ask(raising(errors.Unavailable("Down.")))
    assert counted == []


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_other_scopes_pass_with_their_errors(kind: str) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise errors.Invalid(scope["type"])

    async def nothing(*_: object) -> Message:
        raise AssertionError

    call: Callable[..., object] = nothing
    with pytest.raises(errors.Invalid, match=kind):
        await Problems(fail)({"type": kind}, call, call)  # type: ignore[arg-type]
