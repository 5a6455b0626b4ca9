"""What arrives at a real collector, and what happens to us when the collector misbehaves."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from otlp_collector import Behaviour, Collector, Point, Span, otlp_collector
from ragagent import __version__, names, telemetry
from ragagent.config import Telemetry
from ragagent.errors import ConfigError, Invalid

CLIENT_TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT_SPAN = "b7ad6b7169203331"
CLIENT = f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-01"


@pytest.fixture(autouse=True)
def _quick_exports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    yield
    telemetry.shutdown()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with otlp_collector() as collector:
        yield collector
        assert collector.faults == []
        telemetry.shutdown()


def start(collector: Collector, **settings: Any) -> None:
    telemetry.init(Telemetry(endpoint=collector.endpoint, **settings), role="worker", slot=3)


def span_named(collector: Collector, name: str) -> Span:
    found = collector.wait_for(name)
    assert isinstance(found, Span)
    return found


# --- Off -------------------------------------------------------------------------------------------------------------


def test_off_every_span_is_the_same_silent_one() -> None:
    telemetry.init(Telemetry(endpoint=""), role="worker", slot=0)
    with telemetry.span(names.QUERY, {names.STORE_ID: "vs_1"}) as outer, telemetry.span(names.CACHE) as inner:
        inner.set(names.CACHE_TIER, "l1")
        inner.rename("other")
        inner.fail("nothing")
        assert outer is inner is telemetry.server_span("GET", [(b"traceparent", CLIENT.encode())])
        assert not inner.is_recording
        assert telemetry.trace_id() is None
        assert telemetry.traceparent() is None


def test_off_metrics_go_nowhere_and_callbacks_are_never_asked() -> None:
    telemetry.init(Telemetry(endpoint=""), role="worker", slot=0)
    telemetry.count(names.ANSWERS)
    telemetry.record(names.HTTP_DURATION, 0.1)
    telemetry.gauge(names.DEPENDENCY_UP, lambda: pytest.fail("asked while telemetry is off"))
    telemetry.shutdown()


def test_off_exceptions_pass_through() -> None:
    with pytest.raises(LookupError), telemetry.span(names.QUERY):
        raise LookupError


def test_the_standard_switch_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    telemetry.init(Telemetry(endpoint="http://127.0.0.1:9"), role="worker", slot=0)
    assert not telemetry.span(names.QUERY).is_recording


# --- Settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"])
def test_grpc_is_refused_with_its_reason(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "grpc")
    with pytest.raises(ConfigError, match=rf"'{variable}' has value 'grpc'.*http/protobuf"):
        telemetry.init(Telemetry(endpoint="http://127.0.0.1:4317"), role="worker", slot=0)


def test_an_endpoint_without_scheme_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'localhost:4317/v1/traces' is no http\(s\) URL"):
        telemetry.check(Telemetry(endpoint="localhost:4317"))


def test_a_sample_ratio_above_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'telemetry\.sample_ratio' has value '1\.5'"):
        telemetry.check(Telemetry(endpoint="http://127.0.0.1:4318", sample_ratio=1.5))


def test_settings_are_not_checked_while_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    telemetry.check(Telemetry(endpoint=""))


def test_a_second_init_is_a_mistake_until_shutdown(collector: Collector) -> None:
    start(collector)
    with pytest.raises(RuntimeError, match="already on"):
        start(collector)
    telemetry.shutdown()
    start(collector)


def test_standard_variables_reach_the_exporter(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    start(collector)
    with telemetry.span(names.QUERY):
        pass
    assert span_named(collector, names.QUERY).resource["deployment.environment.name"] == "test"
    assert collector.headers[0]["x-tenant"] == "blue"
    assert collector.headers[0]["content-encoding"] == "gzip"


def test_a_signals_own_endpoint_is_a_whole_url(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.endpoint}/v1/traces")
    telemetry.init(Telemetry(endpoint="http://127.0.0.1:9"), role="worker", slot=0)
    with telemetry.span(names.QUERY):
        pass
    collector.wait_for(names.QUERY)


def test_a_backend_for_traces_alone_gets_no_metrics(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    start(collector)
    telemetry.count(names.ANSWERS)
    with telemetry.span(names.QUERY):
        pass
    telemetry.shutdown()
    assert collector.named(names.QUERY)
    assert collector.points == []


# --- Spans -----------------------------------------------------------------------------------------------------------


def test_spans_nest_and_say_which_process_made_them(collector: Collector) -> None:
    start(collector, service_name="library")
    with telemetry.span(names.QUERY, {names.GENERATION: 7}) as query:
        query.set(names.ANSWER_OUTCOME, "answered")
        query.set(names.GEN_AI_CONVERSATION, None)
        with telemetry.span(names.CHAT.format(model="m-1"), kind="client"):
            trace = telemetry.trace_id()
    telemetry.shutdown()
    assert trace is not None
    assert collector.tree(trace) == [("ragagent.query", [("chat m-1", [])])]
    query_span, chat_span = collector.named("ragagent.query")[0], collector.named("chat m-1")[0]
    assert query_span.attributes == {names.GENERATION: 7, names.ANSWER_OUTCOME: "answered"}
    assert (query_span.kind, chat_span.kind) == ("internal", "client")
    assert query_span.resource[names.SERVICE_NAME] == "library"
    assert query_span.resource[names.SERVICE_VERSION] == __version__
    assert query_span.resource[names.PROCESS_ROLE] == "worker"
    assert query_span.resource[names.WORKER_SLOT] == 3
    assert query_span.resource[names.SERVICE_INSTANCE_ID]


def test_an_exception_marks_its_span_by_type_alone_and_propagates(collector: Collector) -> None:
    start(collector)
    with pytest.raises(Invalid), telemetry.span(names.QUERY):
        raise Invalid("Question 'my secret' is too long.", code="question_too_long")
    with pytest.raises(ZeroDivisionError), telemetry.span(names.CACHE):
        raise ZeroDivisionError("my secret")
    telemetry.shutdown()
    for name, kind in ((names.QUERY, "question_too_long"), (names.CACHE, "ZeroDivisionError")):
        (span,) = collector.named(name)
        assert span.is_error
        assert span.attributes == {names.ERROR_TYPE: kind}
        assert (span.message, span.events) == ("", 0)


def test_a_cancellation_is_no_failure(collector: Collector) -> None:
    start(collector)
    with pytest.raises(asyncio.CancelledError), telemetry.span(names.QUERY):
        raise asyncio.CancelledError
    span = span_named(collector, names.QUERY)
    assert not span.is_error
    assert span.attributes == {names.CANCELLED: True}


def test_after_a_span_its_parent_is_current_again(collector: Collector) -> None:
    start(collector)
    with telemetry.span(names.QUERY):
        outer = telemetry.traceparent()
        with telemetry.span(names.CACHE):
            assert telemetry.traceparent() != outer
        assert telemetry.traceparent() == outer
    assert telemetry.traceparent() is None


@pytest.mark.anyio
async def test_a_span_is_the_parent_of_what_tasks_and_threads_do_in_it(collector: Collector) -> None:
    start(collector)

    def search() -> None:
        with telemetry.span(names.RETRIEVAL.format(store="books"), kind="client"):
            pass

    async def embed() -> None:
        with telemetry.span(names.EMBEDDINGS.format(model="m-1")):
            await anyio.lowlevel.checkpoint()

    with telemetry.span(names.QUERY):
        trace = telemetry.trace_id()
        await asyncio.create_task(embed())
        await anyio.to_thread.run_sync(search)
    await anyio.to_thread.run_sync(telemetry.shutdown)
    assert trace is not None
    assert collector.tree(trace) == [("ragagent.query", [("embeddings m-1", []), ("retrieval books", [])])]


@pytest.mark.anyio
async def test_tasks_side_by_side_do_not_mix_their_spans(collector: Collector) -> None:
    start(collector)
    traces = []

    async def query() -> None:
        with telemetry.span(names.QUERY):
            await anyio.lowlevel.checkpoint()
            with telemetry.span(names.CACHE):
                await anyio.lowlevel.checkpoint()
            traces.append(telemetry.trace_id())

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(query)
    await anyio.to_thread.run_sync(telemetry.shutdown)
    assert len(set(traces)) == 20
    assert all(collector.tree(trace or "") == [("ragagent.query", [("ragagent.cache", [])])] for trace in traces)


@pytest.mark.anyio
async def test_a_span_may_end_in_another_context(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    start(collector)

    async def pieces() -> AsyncIterator[str]:
        with telemetry.span(names.CHAT.format(model="m-1")):
            yield "a"
            yield "b"

    async def take_one(stream: AsyncIterator[str]) -> str:
        return await anext(stream)

    stream = pieces()
    assert await asyncio.create_task(take_one(stream)) == "a"
    await asyncio.create_task(stream.aclose())  # type: ignore[attr-defined]
    await anyio.to_thread.run_sync(telemetry.shutdown)
    assert collector.named("chat m-1")[0].attributes == {names.CANCELLED: True}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# --- Traces across processes -----------------------------------------------------------------------------------------


def test_a_strangers_traceparent_becomes_a_link(collector: Collector) -> None:
    start(collector)
    with telemetry.server_span("GET", [(b"host", b"x"), (b"traceparent", CLIENT.encode())]):
        pass
    span = span_named(collector, "GET")
    assert span.kind == "server"
    assert span.parent_id == ""
    assert span.trace_id != CLIENT_TRACE
    assert span.links == ((CLIENT_TRACE, CLIENT_SPAN),)


def test_a_trusted_traceparent_becomes_the_parent(collector: Collector) -> None:
    start(collector)
    with telemetry.server_span("GET", [(b"traceparent", CLIENT.encode())], trust=True):
        assert telemetry.trace_id() == CLIENT_TRACE
    span = span_named(collector, "GET")
    assert span.parent_id == CLIENT_SPAN
    assert span.links == ()


@pytest.mark.parametrize("trust", [True, False])
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"traceparent", b"")],
        [(b"traceparent", b"00-zz-zz-01")],
        [(b"traceparent", b"\xff\xfe")],
        [(b"traceparent", CLIENT.encode()), (b"traceparent", CLIENT.encode())],
    ],
    ids=["none", "empty", "not hex", "not text", "two"],
)
def test_an_unreadable_traceparent_counts_as_none(
    collector: Collector, headers: list[tuple[bytes, bytes]], trust: bool
) -> None:
    start(collector)
    with telemetry.span(names.QUERY), telemetry.server_span("GET", headers, trust=trust):
        pass
    span = span_named(collector, "GET")
    assert (span.parent_id, span.links) == ("", ())


def test_a_stored_traceparent_links_an_ingest_to_its_upload(collector: Collector) -> None:
    start(collector)
    with telemetry.server_span("POST", []):
        stored = telemetry.traceparent()
    with telemetry.span(names.INGEST, kind="consumer", link=stored):
        pass
    telemetry.shutdown()
    (upload,), (ingest,) = collector.named("POST"), collector.named(names.INGEST)
    assert ingest.kind == "consumer"
    assert ingest.trace_id != upload.trace_id
    assert ingest.links == ((upload.trace_id, upload.span_id),)


def test_a_message_from_another_process_can_be_continued(collector: Collector) -> None:
    start(collector)
    with telemetry.span(names.RELOAD_READY, parent=CLIENT):
        assert telemetry.trace_id() == CLIENT_TRACE
    assert span_named(collector, names.RELOAD_READY).parent_id == CLIENT_SPAN


def test_what_is_not_sampled_is_not_sent_but_keeps_its_ids(collector: Collector) -> None:
    start(collector, sample_ratio=0.0)
    with telemetry.span(names.QUERY) as span:
        assert not span.is_recording
        assert telemetry.trace_id() is not None
    with telemetry.span(names.RELOAD_READY, parent=CLIENT):  # sampled by whoever began it
        pass
    telemetry.shutdown()
    assert [span.name for span in collector.spans] == [names.RELOAD_READY]


# --- Metrics ---------------------------------------------------------------------------------------------------------


def test_counters_add_up_and_carry_their_attributes(collector: Collector) -> None:
    start(collector)
    for outcome in ("answered", "answered", "no_hits"):
        telemetry.count(names.ANSWERS, 1, {names.ANSWER_OUTCOME: outcome})
    telemetry.count(names.HTTP_ACTIVE, 3)
    telemetry.count(names.HTTP_ACTIVE, -1)
    telemetry.shutdown()
    assert collector.total("ragagent.answers", {names.ANSWER_OUTCOME: "answered"}) == 2
    assert collector.total("ragagent.answers") == 3
    assert collector.of("ragagent.answers")[0].is_monotonic
    (active,) = collector.of("http.server.active_requests")
    assert (active.value, active.unit, active.is_monotonic) == (2, "{request}", False)


def test_histograms_use_the_buckets_of_the_table(collector: Collector) -> None:
    start(collector)
    telemetry.record(names.HTTP_DURATION, 1.9)
    telemetry.record(names.HTTP_DURATION, 2.1)
    point = collector_point(collector, "http.server.request.duration")
    assert point.bounds == names.HTTP_DURATION.buckets
    assert dict(zip((*point.bounds, float("inf")), point.buckets, strict=True))[2.0] == 1
    assert (point.count, point.unit) == (2, "s")


def test_a_gauge_is_asked_at_every_export(collector: Collector) -> None:
    rows = iter(range(1, 1000))
    start(collector, metrics_seconds=0.1)
    telemetry.gauge(names.INDEX_DELTA_ROWS, lambda: [({names.STORE_ID: "vs_1"}, next(rows))])
    collector.wait_until(lambda: collector.total("ragagent.index.delta_rows", {names.STORE_ID: "vs_1"}) >= 3)
    assert collector.of("ragagent.index.delta_rows")[0].kind == "gauge"


def test_several_callbacks_feed_one_gauge_and_a_broken_one_harms_no_other(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    start(collector)
    telemetry.gauge(names.DEPENDENCY_UP, lambda: 1 // 0)
    telemetry.gauge(names.DEPENDENCY_UP, lambda: [({names.DEPENDENCY: "redis"}, 1)])
    telemetry.gauge(names.DEPENDENCY_UP, lambda: [({names.DEPENDENCY: "embedder"}, 0)])
    telemetry.gauge(names.REDIS_CONNECTIONS, lambda: 4)
    telemetry.shutdown()
    up = {point.attributes[names.DEPENDENCY]: point.value for point in collector.of("ragagent.dependency.up")}
    assert up == {"redis": 1, "embedder": 0}
    assert "metric 'ragagent.dependency.up' failed" in caplog.text
    (connections,) = collector.of("db.client.connection.count")
    assert (connections.kind, connections.is_monotonic, connections.value) == ("sum", False, 4)


def test_threads_share_one_instrument_from_the_first_use_on(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    start(collector)
    together = threading.Barrier(8)

    def count() -> None:
        together.wait()
        for _ in range(100):
            telemetry.count(names.AUTH_FAILURES, 1, {names.AUTH_FAILURE: "unknown"})

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    telemetry.shutdown()
    assert collector.total("ragagent.auth.failures") == 800
    assert caplog.text == ""


def test_every_metric_of_the_table_can_be_sent_as_the_table_says(collector: Collector) -> None:
    start(collector)
    for row in names.METRICS:
        values = dict.fromkeys(row.attributes, "x")
        if isinstance(row, names.Histogram):
            telemetry.record(row, 0.1, values)
        elif isinstance(row, names.Counter | names.UpDownCounter):
            telemetry.count(row, 1, values)
        elif isinstance(row, names.Gauge):
            telemetry.gauge(row, lambda values=values: [(values, 1)])  # type: ignore[misc]
    telemetry.shutdown()
    assert {point.name for point in collector.points} == {row.name for row in names.METRICS}
    assert collector.undocumented() == set()


def test_the_collector_of_these_tests_tells_what_no_table_holds(collector: Collector) -> None:
    start(collector)
    with telemetry.span("ragagent.surprise", {"ragagent.surprising": 1}):
        telemetry.count(names.ANSWERS, 1, {names.STORE_ID: "vs_1"})
    telemetry.shutdown()
    assert collector.undocumented() == {
        "span ragagent.surprise",
        "attribute ragagent.surprising",
        "attribute ragagent.store.id of ragagent.answers",
    }


def collector_point(collector: Collector, name: str) -> Point:
    telemetry.shutdown()
    (point,) = collector.of(name)
    return point


# --- Collectors that fail --------------------------------------------------------------------------------------------


def work() -> float:
    """Report far more than the queue holds and return the longest time that one report took."""
    longest = 0.0
    for _ in range(3_000):
        began = time.perf_counter()
        with telemetry.span(names.QUERY):
            telemetry.count(names.ANSWERS)
        longest = max(longest, time.perf_counter() - began)
    return longest


@pytest.mark.parametrize("behaviour", ["hang", "unavailable", "slow"])
def test_a_bad_collector_neither_blocks_nor_raises_nor_holds_the_exit(
    collector: Collector, behaviour: Behaviour
) -> None:
    collector.behave(behaviour)
    start(collector, metrics_seconds=0.1)
    # A bound on blocking, not on speed: an export would hold a caller for the two seconds of its timeout.
    assert work() < telemetry.EXPORT_SECONDS / 2
    began = time.monotonic()
    telemetry.shutdown()
    assert time.monotonic() - began <= 2.5


def test_no_collector_at_all_is_the_same() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        telemetry.init(Telemetry(endpoint=endpoint, metrics_seconds=0.1), role="worker", slot=0)
        assert work() < telemetry.EXPORT_SECONDS / 2
        began = time.monotonic()
        telemetry.shutdown()
        assert time.monotonic() - began <= 2.5


@pytest.mark.parametrize("behaviour", ["unavailable", "hang"])
def test_a_collector_that_comes_back_gets_what_follows(collector: Collector, behaviour: Behaviour) -> None:
    collector.behave(behaviour)
    start(collector, metrics_seconds=0.1)
    telemetry.count(names.ANSWERS)
    collector.wait_until(lambda: collector.requests > 0)
    collector.behave("well")
    telemetry.count(names.ANSWERS)
    # Twice the timeout of the export that hangs; with the SDK's own, nothing would come for ten seconds.
    collector.wait_until(lambda: collector.total("ragagent.answers") == 2, timeout=2 * telemetry.EXPORT_SECONDS)


def test_after_shutdown_reporting_is_a_no_op(collector: Collector) -> None:
    start(collector)
    with telemetry.span(names.QUERY):
        telemetry.shutdown()
        assert not telemetry.span(names.CACHE).is_recording
        telemetry.count(names.ANSWERS)
    telemetry.shutdown()
    assert collector.points == []


# --- Forks -----------------------------------------------------------------------------------------------------------

FORKS, SPANS_EACH = 50, 20

# A process of its own, so that the parent has no thread when it forks, as a zygote has none.
FORKING = """
import json, os, sys, time
from ragagent import names, telemetry
from ragagent.config import Telemetry

endpoint, forks, spans = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def child(slot):
    telemetry.init(Telemetry(endpoint=endpoint), role="worker", slot=slot)
    for _ in range(spans):
        with telemetry.span(names.QUERY):
            telemetry.count(names.ANSWERS, 1, {names.ANSWER_OUTCOME: "answered"})
    telemetry.shutdown()

def reap(pid, deadline):
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.002)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return False

hung = 0
for first in range(0, forks, 5):
    pids = []
    for slot in range(first, first + 5):
        if (pid := os.fork()) == 0:
            child(slot)
            os._exit(0)
        pids.append(pid)
    deadline = time.monotonic() + 20
    hung += sum(not reap(pid, deadline) for pid in pids)
print(json.dumps({"hung": hung}))
"""


def test_fifty_forks_report_exactly_and_as_themselves(collector: Collector) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKING, collector.endpoint, str(FORKS), str(SPANS_EACH)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(done.stdout) == {"hung": 0}
    assert done.stderr == ""
    spans = collector.named(names.QUERY)
    assert len(spans) == len({span.span_id for span in spans}) == FORKS * SPANS_EACH
    assert collector.total("ragagent.answers") == FORKS * SPANS_EACH
    assert len({span.resource[names.SERVICE_INSTANCE_ID] for span in spans}) == FORKS
    assert {span.resource[names.WORKER_SLOT] for span in spans} == set(range(FORKS))
