"""Telemetry of one process: spans and metrics, sent as OTLP over http/protobuf. Off, it costs next to nothing.

Every floor reports, so this is the one place with process-wide state: `init` sets it, `shutdown` clears it. `init`
belongs after the fork, because the SDK's threads, sockets and counters do not survive one: with providers made before
it, every child exports the parent's counts again, children share one connection to the collector, and with gRPC one
child in three hung for ever. gRPC is therefore refused; its own threads are enough to hang a fork.

A collector that is slow, gone or hung never slows a request: spans wait in a bounded queue, and what does not fit is
dropped. What is sent carries names from `ragagent.names` and no text that people wrote: an error gives its type, never
its message.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import metrics as otel_metrics
from opentelemetry import trace as otel_trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ragagent import __version__, config, names
from ragagent.errors import ConfigError, RagagentError

Value = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, Value]
Observable = names.Gauge | names.UpDownCounter | names.Counter
Measured = float | Iterable[tuple[Attributes, float]]

# How long a collector that never answers may hold an export. The SDK's default would hold a reload for 40 seconds.
EXPORT_SECONDS: Final = 2.0
SHUTDOWN_SECONDS: Final = 2.0

_KINDS: Final = MappingProxyType(
    {
        "internal": otel_trace.SpanKind.INTERNAL,
        "server": otel_trace.SpanKind.SERVER,
        "client": otel_trace.SpanKind.CLIENT,
        "consumer": otel_trace.SpanKind.CONSUMER,
    }
)
_W3C: Final = TraceContextTextMapPropagator()
_log = logging.getLogger(__name__)


class Span:
    """A piece of work under way. This one is silent: what everyone gets, and shares, while telemetry is off."""

    __slots__ = ()

    @property
    def is_recording(self) -> bool:
        """False when what is set here goes nowhere: telemetry is off, or the trace was not sampled."""
        return False

    def set(self, key: str, value: Value | None) -> None:
        """Set an attribute; None sets nothing."""

    def set_all(self, attributes: Mapping[str, Value | None]) -> None:
        """Set many at once, which is cheaper than one by one; None sets nothing."""

    def rename(self, name: str) -> None:
        """Give it another name: an HTTP route is known only after routing."""

    def fail(self, reason: BaseException | str) -> None:
        """Mark it as failed, with `error.type`; an exception that is no Exception is a cancellation, and no failure."""

    def __enter__(self) -> Span:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """End it; an exception marks it and propagates."""


class _LiveSpan(Span):
    __slots__ = ("_span", "_token")

    def __init__(self, span: otel_trace.Span) -> None:
        self._span = span

    @property
    def is_recording(self) -> bool:
        return self._span.is_recording()

    def set(self, key: str, value: Value | None) -> None:
        if value is not None:
            self._span.set_attribute(key, value)

    def set_all(self, attributes: Mapping[str, Value | None]) -> None:
        self._span.set_attributes({key: value for key, value in attributes.items() if value is not None})

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def fail(self, reason: BaseException | str) -> None:
        if isinstance(reason, BaseException) and not isinstance(reason, Exception):
            self._span.set_attribute(names.CANCELLED, True)
            return
        self._span.set_attribute(names.ERROR_TYPE, error_type(reason))
        self._span.set_status(otel_trace.StatusCode.ERROR)

    def __enter__(self) -> Span:
        self._token = otel_context.attach(otel_trace.set_span_in_context(self._span))
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if exc is not None:
            self.fail(exc)
        try:
            self._token.var.reset(self._token)
        except ValueError:
            pass  # Ended in another context than it began in, as an abandoned async generator is: that context is gone.
        self._span.end()


_SILENT: Final = Span()


class _Reporter:
    """The providers of this process and the instruments made so far.

    Our own objects, never OpenTelemetry's globals, and no atexit hook: a process leaves through `shutdown`, in bounded
    time.
    """

    def __init__(self, settings: config.Telemetry, role: str, slot: int) -> None:
        resource = _resource(settings, role, slot)
        self.meters = MeterProvider(_metric_readers(settings), resource=resource, shutdown_on_exit=False)
        self.tracers = TracerProvider(
            ParentBased(TraceIdRatioBased(settings.sample_ratio)), resource=resource, shutdown_on_exit=False
        )
        if wanted("traces"):
            exporter = OTLPSpanExporter(
                url(settings.endpoint, "traces"), timeout=EXPORT_SECONDS, meter_provider=self.meters
            )
            self.tracers.add_span_processor(BatchSpanProcessor(exporter, meter_provider=self.meters))
        self.tracer = self.tracers.get_tracer("ragagent", __version__)
        self.meter = self.meters.get_meter("ragagent", __version__)
        self._lock = threading.Lock()  # guards the making of instruments and callback lists; looking one up takes none
        self._instruments: dict[names.Metric, Any] = {}
        self._callbacks: dict[names.Metric, list[Callable[[], Measured]]] = {}

    def instrument(self, row: names.Metric) -> Any:
        if (found := self._instruments.get(row)) is not None:
            return found
        with self._lock:
            if row not in self._instruments:
                self._instruments[row] = self._make(row)
            return self._instruments[row]

    def _make(self, row: names.Metric) -> Any:
        if isinstance(row, names.Histogram):
            return self.meter.create_histogram(
                row.name, row.unit, row.about, explicit_bucket_boundaries_advisory=row.buckets
            )
        if isinstance(row, names.Counter):
            return self.meter.create_counter(row.name, row.unit, row.about)
        return self.meter.create_up_down_counter(row.name, row.unit, row.about)

    def observe(self, row: Observable, callback: Callable[[], Measured]) -> None:
        with self._lock:
            # The SDK would silently keep only the first callback of a name; ours share one list.
            if row in self._callbacks:
                self._callbacks[row].append(callback)
                return
            callbacks = self._callbacks[row] = [callback]
            self._observer(row)(row.name, [lambda _options: list(_measure(row.name, callbacks))], row.unit, row.about)

    def _observer(self, row: Observable) -> Callable[..., Any]:
        if isinstance(row, names.Gauge):
            return self.meter.create_observable_gauge
        if isinstance(row, names.Counter):
            return self.meter.create_observable_counter
        return self.meter.create_observable_up_down_counter

    def close(self) -> None:
        """Send what is left, for SHUTDOWN_SECONDS at most; what hangs is left to its daemon thread."""
        ends = [
            threading.Thread(target=provider.shutdown, name="telemetry-shutdown", daemon=True)
            for provider in (self.tracers, self.meters)
        ]
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        for end in ends:
            end.start()
        for end in ends:
            end.join(max(deadline - time.monotonic(), 0.0))


_reporter: _Reporter | None = None


def check(settings: config.Telemetry) -> None:
    """Raise ConfigError if `init` would: a reload can refuse such settings before it starts a process."""
    if not _is_on(settings):
        return
    for signal in ("traces", "metrics"):
        _check_signal(settings, signal)
    if not 0 <= settings.sample_ratio <= 1:
        raise ConfigError(
            f"Config key 'telemetry.sample_ratio' has value '{settings.sample_ratio:g}'; it must be from 0 to 1."
        )


def init(settings: config.Telemetry, *, role: str, slot: int) -> None:
    """Start to report, as process `role` in `slot`; with an empty endpoint stay off. After the fork, once per process.

    The OTEL_* variables of the SDK (headers, certificates, compression, batch sizes, resource attributes) apply. Raises
    ConfigError: the endpoint is no http(s) URL, another protocol than http/protobuf is asked for.
    """
    global _reporter
    if _reporter is not None:
        raise RuntimeError("Telemetry is already on in this process; it can be started again after shutdown().")
    check(settings)
    if _is_on(settings):
        _reporter = _Reporter(settings, role, slot)


def shutdown() -> None:
    """Send what is left and stop, within two seconds whatever the collector does. Everything after this is a no-op."""
    global _reporter
    reporter, _reporter = _reporter, None
    if reporter is not None:
        reporter.close()


def span(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: names.Kind = "internal",
    parent: str | None = None,
    link: str | None = None,
) -> Span:
    """Begin a piece of work, for a `with` block: a child of the current span, or of the traceparent `parent`.

    `link` is the traceparent of work that led to this one and does not wait for it, as an upload leads to its ingest. A
    traceparent that cannot be read counts as none.
    """
    reporter = _reporter
    if reporter is None:
        return _SILENT
    context = _remote(parent) if parent else None
    return _LiveSpan(
        reporter.tracer.start_span(name, context, kind=_KINDS[kind], attributes=attributes, links=_links(link))
    )


def server_span(
    name: str, headers: Iterable[tuple[bytes, bytes]], attributes: Attributes | None = None, *, trust: bool = False
) -> Span:
    """Begin the answer to a request with these (lower case) headers: the root span of its own trace.

    The client's traceparent becomes the parent if `trust`, else a link: a stranger must not decide what is sampled.
    """
    reporter = _reporter
    if reporter is None:
        return _SILENT
    client = _client_traceparent(headers)
    context = _remote(client) if trust and client else otel_context.Context()
    links = None if trust else _links(client)
    return _LiveSpan(
        reporter.tracer.start_span(name, context, kind=_KINDS["server"], attributes=attributes, links=links)
    )


def traceparent() -> str | None:
    """Return the current span in W3C form, to be stored with work that others will do; None without a span."""
    current = otel_trace.get_current_span().get_span_context()
    if not current.is_valid:
        return None
    return f"00-{current.trace_id:032x}-{current.span_id:016x}-{current.trace_flags:02x}"


def trace_id() -> str | None:
    """Return the current trace's id, 32 hex digits; None without a span."""
    current = otel_trace.get_current_span().get_span_context()
    return f"{current.trace_id:032x}" if current.is_valid else None


def count(
    metric: names.Counter | names.UpDownCounter, value: int | float = 1, attributes: Attributes | None = None
) -> None:
    """Add `value` to a counter; only an UpDownCounter takes a negative one."""
    reporter = _reporter
    if reporter is not None:
        reporter.instrument(metric).add(value, attributes)


def record(metric: names.Histogram, value: float, attributes: Attributes | None = None) -> None:
    """Put `value`, in the metric's unit (durations: seconds), into a histogram."""
    reporter = _reporter
    if reporter is not None:
        reporter.instrument(metric).record(value, attributes)


def gauge(metric: Observable, callback: Callable[[], Measured]) -> None:
    """Have `callback` asked before each export, for one number or for `(attributes, number)` pairs. After `init`.

    Of a counter it tells the total so far: for what is counted anyway, or too often for `count`, which takes 8 µs.
    It runs in the exporter's thread: it must be quick and thread-safe. Several callbacks may feed one metric, each with
    its own attributes; one that raises is logged and left out of that export.
    """
    reporter = _reporter
    if reporter is not None:
        reporter.observe(metric, callback)


def error_type(reason: BaseException | str) -> str:
    """Return the value of `error.type`: our error's code, else the exception's class. Few values, and no message."""
    if isinstance(reason, str):
        return reason
    return reason.code if isinstance(reason, RagagentError) else type(reason).__qualname__


def wanted(signal: str) -> bool:
    """Return False for OTEL_{SIGNAL}_EXPORTER=none: some backends take traces and refuse metrics."""
    return os.environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower() != "none"


def url(endpoint: str, signal: str) -> str:
    """Return where a signal goes, as OTLP says: its own variable names a whole URL, the common one a base."""
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return own or f"{endpoint.rstrip('/')}/v1/{signal}"


def _is_on(settings: config.Telemetry) -> bool:
    return bool(settings.endpoint) and os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"


def _check_signal(settings: config.Telemetry, signal: str) -> None:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if (protocol := os.environ.get(variable) or "http/protobuf") != "http/protobuf":
            raise ConfigError(
                f"Environment variable '{variable}' has value '{protocol}'; telemetry is sent as 'http/protobuf' only "
                "(gRPC's threads do not survive the forks of workers). Collectors take that on port 4318."
            )
    if not (target := url(settings.endpoint, signal)).startswith(("http://", "https://")):
        raise ConfigError(
            f"Telemetry endpoint '{target}' is no http(s) URL; 'telemetry.endpoint' must be one, as in http://127.0.0.1:4318."
        )


def _metric_readers(settings: config.Telemetry) -> list[PeriodicExportingMetricReader]:
    if not wanted("metrics"):
        return []
    exporter = OTLPMetricExporter(url(settings.endpoint, "metrics"), timeout=EXPORT_SECONDS)
    return [PeriodicExportingMetricReader(exporter, settings.metrics_seconds * 1000, EXPORT_SECONDS * 1000)]


def _resource(settings: config.Telemetry, role: str, slot: int) -> Resource:
    return Resource.create(
        {
            names.SERVICE_NAME: settings.service_name,
            names.SERVICE_VERSION: __version__,
            names.SERVICE_INSTANCE_ID: str(uuid.uuid4()),
            names.PROCESS_PID: os.getpid(),
            names.PROCESS_ROLE: role,
            names.WORKER_SLOT: slot,
        }
    )


def _measure(name: str, callbacks: list[Callable[[], Measured]]) -> Iterable[otel_metrics.Observation]:
    for callback in list(callbacks):
        try:
            measured = callback()
            points = [({}, measured)] if isinstance(measured, int | float) else list(measured)
        except Exception:
            _log.exception("The callback of metric '%s' failed; this export goes without it.", name)
            continue
        yield from (otel_metrics.Observation(value, attributes) for attributes, value in points)


def _client_traceparent(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the header's value; None when it came twice, because then no one can say which of them is meant."""
    found = [value for key, value in headers if key == b"traceparent"]
    return found[0].decode("latin-1") if len(found) == 1 else None


def _remote(header: str) -> otel_context.Context:
    return _W3C.extract({"traceparent": header}, otel_context.Context())


def _links(header: str | None) -> list[otel_trace.Link] | None:
    if not header:
        return None
    linked = otel_trace.get_current_span(_remote(header)).get_span_context()
    return [otel_trace.Link(linked)] if linked.is_valid else None
