"""The process that exports what the supervisor tells: messages in over one socket, OTLP over HTTP out.

The only file of this package that may import more than the standard library, because the supervisor never imports it.
It reads while nothing is being sent and sends while nothing is being read: the line is the only queue, and the
supervisor counts what it has no room for. Numbers come as totals, so that only the newest ones matter, and an exporter
that takes the place of another goes on where that one stopped. It leaves when the line ends.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import socket
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from ragagent import __version__, names, telemetry
from ragagent.lifeline import settle_signals
from ragagent.supervisor.prctl import die_with_parent, name_process

KEPT_TRACES = 256  # reloads and crashes are rare: days of them
FLUSH_SECONDS = 1.5  # The supervisor waits for 2.
_PACKET_BYTES = 1_048_576
_SCOPE = "ragagent.supervisor"
_ROWS = {row.name: row for row in names.METRICS}

Message = Mapping[str, Any]


def run(line: socket.socket) -> None:
    """Export what arrives, until the supervisor hangs up; what is left then has FLUSH_SECONDS."""
    outbox, over = Outbox(), False
    while not over:
        messages, over = _arrived(line)
        if over:
            # Its default is to kill, and the kernel asks nobody: neither a collector nor a resolver can hold it longer.
            signal.setitimer(signal.ITIMER_REAL, FLUSH_SECONDS)
        for destination, batch in groupby(messages, key=lambda message: message["to"]):
            outbox.send(destination, list(batch))


def _arrived(line: socket.socket) -> tuple[list[Message], bool]:
    """Wait for a message, take what else is there, and say whether the line has ended."""
    messages: list[Message] = []
    flags = 0
    while True:
        try:
            data = line.recv(_PACKET_BYTES, flags)
        except BlockingIOError:
            return messages, False
        if not data:
            return messages, True
        messages.append(json.loads(data))
        flags = socket.MSG_DONTWAIT


class Outbox:
    """What waits for a collector: traces until one has taken them, and of the numbers, which are totals, the newest.

    Each export has connections of its own: a minute may have passed since the last ones were used.
    """

    def __init__(self) -> None:
        self._traces: deque[Sequence[ReadableSpan]] = deque(maxlen=KEPT_TRACES)

    def send(self, destination: Message, messages: Sequence[Message]) -> None:
        endpoint, resource = destination["endpoint"], _resource(destination)
        self._traces.extend(spans_of(message["trace"], resource) for message in messages if "trace" in message)
        if self._traces and telemetry.wanted("traces"):
            self._send_traces(telemetry.url(endpoint, "traces"))
        measured = [message["metrics"] for message in messages if "metrics" in message]
        if measured and telemetry.wanted("metrics"):
            exporter = OTLPMetricExporter(telemetry.url(endpoint, "metrics"), timeout=telemetry.EXPORT_SECONDS)
            exporter.export(metrics_of(measured[-1], resource))
            exporter.shutdown()

    def _send_traces(self, url: str) -> None:
        exporter: SpanExporter = OTLPSpanExporter(url, timeout=telemetry.EXPORT_SECONDS)
        if exporter.export(list(chain.from_iterable(self._traces))) is SpanExportResult.SUCCESS:
            self._traces.clear()
        exporter.shutdown()


def _resource(destination: Message) -> Resource:
    return Resource.create(
        {
            names.SERVICE_NAME: destination["service_name"],
            names.SERVICE_VERSION: __version__,
            names.SERVICE_INSTANCE_ID: destination["instance"],
            names.PROCESS_PID: destination["pid"],
            names.PROCESS_ROLE: "supervisor",
        }
    )


# -- traces


class _Collected(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


def spans_of(root: Message, resource: Resource) -> Sequence[ReadableSpan]:
    """Return the finished spans of one trace, children first."""
    collected = _Collected()
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(collected)
    _span(provider.get_tracer(_SCOPE, __version__), root, None)
    return collected.spans


def _span(tracer: trace.Tracer, node: Message, parent: trace.Span | None) -> None:
    context = trace.set_span_in_context(parent) if parent is not None else None
    span = tracer.start_span(node["name"], context, attributes=node["attributes"], start_time=node["start"])
    if node["is_error"]:
        span.set_status(trace.Status(trace.StatusCode.ERROR))
    for child in node["spans"]:
        _span(tracer, child, span)
    span.end(node["end"])


# -- metrics


def metrics_of(measured: Message, resource: Resource) -> MetricsData:
    """Return what was measured at one moment, cumulative since the supervisor began."""
    points = sorted(measured["points"], key=lambda point: str(point[0]))
    grouped = {name: list(series) for name, series in groupby(points, key=lambda point: str(point[0]))}
    metrics = [
        Metric(row.name, row.about, row.unit, _data(row, list(_numbers(row, grouped[name], measured))))
        for name in grouped
        if (row := _ROWS.get(name)) is not None  # Not one that only a supervisor of another version knows.
    ]
    scope = ScopeMetrics(InstrumentationScope(_SCOPE, __version__), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _numbers(row: names.Metric, points: Iterable[Sequence[Any]], measured: Message) -> Iterator[Any]:
    moments = {"start_time_unix_nano": measured["began"], "time_unix_nano": measured["now"]}
    for _, attributes, value in points:
        if isinstance(row, names.Histogram):
            counts = value["counts"]
            yield HistogramDataPoint(
                attributes,
                **moments,
                count=sum(counts),
                sum=value["sum"],
                bucket_counts=counts,
                explicit_bounds=row.buckets,
                min=value["min"],
                max=value["max"],
            )
        else:
            yield NumberDataPoint(attributes, **moments, value=value)


def _data(row: names.Metric, points: list[Any]) -> Sum | Gauge | Histogram:
    if isinstance(row, names.Histogram):
        return Histogram(points, AggregationTemporality.CUMULATIVE)
    if isinstance(row, names.Gauge):
        return Gauge(points)
    return Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=isinstance(row, names.Counter))


def main() -> int:
    parser = argparse.ArgumentParser(prog="ragagent.supervisor.report")
    parser.add_argument("--supervisor", type=int, required=True)
    parser.add_argument("--line", type=int, required=True)
    arguments = parser.parse_args()
    settle_signals()
    # systemd sends it to the whole group; the last thing to tell comes after that. The end of the line ends us.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not die_with_parent(arguments.supervisor):
        return 0
    name_process("rag-reporter")
    # The collector may be down; the supervisor's log is no place to hear of it every ten seconds.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    with socket.socket(fileno=arguments.line) as line:
        line.set_inheritable(False)
        run(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
