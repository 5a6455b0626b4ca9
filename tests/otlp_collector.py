"""A collector in a thread: a real HTTP server on loopback that takes OTLP over http/protobuf and keeps what came.

    with otlp_collector() as collector:
        telemetry.init(Telemetry(endpoint=collector.endpoint), role="worker", slot=0)
        ...
        telemetry.shutdown()
        assert collector.tree(trace_id) == [("POST /v1/responses", [("ragagent.query", [])])]

It can be told to misbehave as collectors do: `collector.behave("hang")`, "unavailable" (503), "slow" (0.5 s an answer).
"""

from __future__ import annotations

import gzip
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1 import trace_pb2

from ragagent import names

Behaviour = Literal["well", "hang", "unavailable", "slow"]
Attributes = Mapping[str, Any]
Node = tuple[str, list[Any]]  # a span's name and its children, in the order of their start


@dataclass(frozen=True)
class Span:
    name: str
    kind: str  # internal, server, client, consumer
    trace_id: str
    span_id: str
    parent_id: str  # "" for a root
    links: tuple[tuple[str, str], ...]  # (trace id, span id)
    attributes: Attributes
    resource: Attributes
    is_error: bool
    message: str  # of the status; ours are always empty
    events: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class Point:
    """A data point; `value` is the number, or the sum of a histogram, of which `count` and `buckets` tell the rest."""

    name: str
    kind: str  # sum, gauge, histogram
    unit: str
    about: str
    attributes: Attributes
    resource: Attributes
    value: float
    count: int = 0
    bounds: tuple[float, ...] = ()
    buckets: tuple[int, ...] = ()
    is_monotonic: bool = False

    @property
    def series(self) -> tuple[Any, ...]:
        """What it is a point of: later points of the same series replace this one (ours are cumulative)."""
        return self.name, self.resource["service.instance.id"], *sorted(self.attributes.items())


class Collector:
    """What came, in the order of its coming. Every look-up may run while more comes."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.behaviour: Behaviour = "well"
        self.requests = 0  # exports that came, refused and lost ones too
        self.faults: list[str] = []  # requests that no collector would understand
        self.headers: list[Mapping[str, str]] = []
        self.released = threading.Event()  # set at the end: lets go what hangs
        self._spans: list[Span] = []
        self._points: list[Point] = []
        self._changed = threading.Condition()

    @property
    def spans(self) -> list[Span]:
        with self._changed:
            return list(self._spans)

    @property
    def points(self) -> list[Point]:
        """The newest point of every series."""
        with self._changed:
            return list({point.series: point for point in self._points}.values())

    def behave(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def of(self, metric: str, attributes: Attributes | None = None) -> list[Point]:
        """The newest points of a metric that carry at least these attributes."""
        wanted = (attributes or {}).items()
        return [point for point in self.points if point.name == metric and wanted <= point.attributes.items()]

    def total(self, metric: str, attributes: Attributes | None = None) -> float:
        """A counter's value, or the count of a histogram's records, summed over processes and series."""
        return sum(point.count or point.value for point in self.of(metric, attributes))

    def wait_for(self, name: str, timeout: float = 5.0) -> Span | Point:
        """The first span or metric point of that name, waiting for it if need be."""
        self.wait_until(lambda: bool(self.named(name) or self.of(name)), timeout, f"nothing named '{name}' came")
        return (self.named(name) or self.of(name))[0]

    def wait_until(self, is_there: Callable[[], bool], timeout: float = 5.0, otherwise: str = "it never came") -> None:
        deadline = time.monotonic() + timeout
        while not is_there():
            with self._changed:
                if not self._changed.wait(min(deadline - time.monotonic(), 0.1)) and time.monotonic() > deadline:
                    raise AssertionError(f"within {timeout:g} s {otherwise}; here are {self._summary()}")

    def tree(self, trace_id: str) -> list[Node]:
        """The names of one trace as they nest. A span whose parent came from elsewhere stands as a root."""
        spans = sorted((span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.start_ns)
        known = {span.span_id for span in spans}

        def node(span: Span) -> Node:
            return span.name, [node(child) for child in spans if child.parent_id == span.span_id]

        return [node(span) for span in spans if span.parent_id not in known]

    def undocumented(self) -> set[str]:
        """The names that came and that no table in `ragagent.names` holds, each with what it is the name of."""
        found = {f"span {span.name}" for span in self.spans if not _is_span(span)}
        rows = {row.name: row for row in names.METRICS}
        for point in self.points:
            row = rows.get(point.name)
            if row is None or row.unit != point.unit:
                found.add(f"metric {point.name} in {point.unit}")
            else:
                found |= {f"attribute {key} of {point.name}" for key in point.attributes if key not in row.attributes}
        keys = {key for span in self.spans for key in span.attributes}
        return found | {f"attribute {key}" for key in keys - {row.key for row in names.ATTRIBUTES}}

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> int:
        """Decode one export and return the status to answer with."""
        try:
            content = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
            spans, points = _decode(path, content)
        except Exception as exc:  # whatever is wrong with it, no collector could read it
            self.faults.append(f"{path}: {exc!r}")
            return 400
        with self._changed:
            self.headers.append(headers)
            self._spans += spans
            self._points += points
            self._changed.notify_all()
        return 200

    def _summary(self) -> str:
        metrics = sorted({point.name for point in self.points})
        return f"spans {sorted({span.name for span in self.spans})} and metrics {metrics}, faults {self.faults}"


@contextmanager
def otlp_collector() -> Iterator[Collector]:
    """Run a collector for the length of a `with` block, on a free port of 127.0.0.1."""
    collector = Collector()
    with _Server(collector) as server:
        collector.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            collector.released.set()
            server.shutdown()
            server.hang_up()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End the connections that exporters keep alive: a collector that is gone is gone for them as well."""
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # It ended by itself.

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that leaves in the middle is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        collector = self.server.collector
        body = self.rfile.read(int(self.headers["content-length"]))
        collector.requests += 1
        if collector.behaviour == "hang":
            collector.released.wait()
            self.close_connection = True
            return
        if collector.behaviour == "slow":
            collector.released.wait(0.5)
        if collector.behaviour == "unavailable":
            self._answer(503)
            return
        headers = {key.lower(): value for key, value in self.headers.items()}
        self._answer(collector.take(self.path, headers, body))

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep stderr for what matters."""


def _decode(path: str, content: bytes) -> tuple[list[Span], list[Point]]:
    if path == "/v1/traces":
        return list(_spans(ExportTraceServiceRequest.FromString(content))), []
    if path == "/v1/metrics":
        return [], list(_points(ExportMetricsServiceRequest.FromString(content)))
    raise KeyError(path)


def _spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            yield from (_span(span, resource) for span in scope.spans)


def _span(span: trace_pb2.Span, resource: Attributes) -> Span:
    return Span(
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        attributes=_attributes(span.attributes),
        resource=resource,
        is_error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        message=span.status.message,
        events=len(span.events),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
    )


def _points(request: ExportMetricsServiceRequest) -> Iterator[Point]:
    for group in request.resource_metrics:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                yield from _points_of(metric, resource)


def _points_of(metric: Metric, resource: Attributes) -> Iterator[Point]:
    kind = metric.WhichOneof("data") or "none"
    data = getattr(metric, kind)
    for point in data.data_points:
        head = (metric.name, kind, metric.unit, metric.description, _attributes(point.attributes), resource)
        if kind == "histogram":
            yield Point(*head, point.sum, point.count, tuple(point.explicit_bounds), tuple(point.bucket_counts))
        else:
            value = getattr(point, point.WhichOneof("value"))
            yield Point(*head, value, is_monotonic=kind == "sum" and data.is_monotonic)


def _attributes(pairs: Iterable[KeyValue]) -> Attributes:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(element) for element in value.array_value.values)
    return getattr(value, kind) if kind else None


def _is_span(span: Span) -> bool:
    """Tell whether the table holds this span. The client spans of what is embedded are internal."""
    return any(
        re.fullmatch(_pattern(row.name), span.name)
        and (span.kind == row.kind or (span.kind, row.kind) == ("internal", "client"))
        for row in names.SPANS
    )


def _pattern(template: str) -> str:
    blanks = {"method": "[A-Z]+", "route": "/.*"}
    return re.sub(r"\\{(\w+)\\}", lambda blank: blanks.get(blank[1], ".+"), re.escape(template))
