"""The child that exports one trace of the supervisor: JSON on stdin, OTLP over HTTP out, then it ends.

The only file of this package that may import more than the standard library, because the supervisor never imports it.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from ragagent import __version__, names

TIMEOUT_SECONDS = 1.0


class _Collected(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


def spans(order: Mapping[str, Any]) -> Sequence[ReadableSpan]:
    """Return the finished spans of `order["trace"]`, children first, all of one trace."""
    resource = Resource.create(
        {
            names.SERVICE_NAME: order["service_name"],
            names.SERVICE_VERSION: __version__,
            names.PROCESS_PID: order["pid"],
            names.PROCESS_ROLE: "supervisor",
        }
    )
    collected = _Collected()
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(collected)
    _span(provider.get_tracer("ragagent.supervisor", __version__), order["trace"], None)
    return collected.spans


def _span(tracer: trace.Tracer, node: Mapping[str, Any], parent: trace.Span | None) -> None:
    context = trace.set_span_in_context(parent) if parent is not None else None
    span = tracer.start_span(node["name"], context, attributes=node["attributes"], start_time=node["start"])
    if node["is_error"]:
        span.set_status(trace.Status(trace.StatusCode.ERROR))
    for child in node.get("spans", ()):
        _span(tracer, child, span)
    span.end(node["end"])


def main() -> int:
    order = json.load(sys.stdin)
    # The collector may be down; the supervisor's log is no place to hear of it after every reload.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    endpoint = f"{order['endpoint'].rstrip('/')}/v1/traces"
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=TIMEOUT_SECONDS)
    result = exporter.export(spans(order))
    return 0 if result is SpanExportResult.SUCCESS else 1


if __name__ == "__main__":
    sys.exit(main())
