"""Every name that telemetry may emit: spans, attributes, metrics, each once and with its meaning.

The names of OpenTelemetry's semantic conventions are written out here as our own constants. Their Python package marks
the gen_ai ones as incubating and renames them between minor releases; a dashboard must not change because a dependency
did. Pinned: HTTP, database and resource names of 1.44.0, gen_ai of 1.41.1 (the last release that held all of them;
`gen_ai.retrieval.top_k` is their successor's). Stdlib only, so that the supervisor can use the same names.

No name here carries what people wrote: neither question nor document nor answer. Attributes of metrics have few values
by design (an instrument keeps at most 2,000 series): never a user, a document, or a path that a client chose. Where an
attribute has only certain values, they stand after the colon in its description.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["internal", "server", "client", "consumer"]


@dataclass(frozen=True, slots=True)
class Span:
    """A row of the span table. What stands in braces in `name` varies: fill it with `str.format`."""

    name: str
    kind: Kind
    about: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """A row of the attribute table: of spans, of metric points, of the resource."""

    key: str
    about: str


# Metrics compare by identity: one row is one instrument, and a hash of five fields would cost more than the look-up.
@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """A row of the metric table: `attributes` are the keys that a point may carry, `unit` is UCUM."""

    name: str
    unit: str
    about: str
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Counter(Metric):
    """Only ever grows."""


@dataclass(frozen=True, slots=True, eq=False)
class UpDownCounter(Metric):
    """Grows and shrinks, and makes sense summed over processes: requests in flight, connections."""


@dataclass(frozen=True, slots=True, eq=False)
class Gauge(Metric):
    """A value of this moment that makes no sense summed: a generation, an age, up or down."""


@dataclass(frozen=True, slots=True, eq=False)
class Histogram(Metric):
    """Upper bucket bounds are floats: `2` would be exported as le="2", and an alert on le="2.0" would never fire."""

    buckets: tuple[float, ...] = ()


_spans: list[Span] = []
_attributes: list[Attribute] = []


def _span(name: str, kind: Kind, about: str) -> str:
    _spans.append(Span(name, kind, about))
    return name


def _attribute(key: str, about: str) -> str:
    _attributes.append(Attribute(key, about))
    return key


# --- Spans -----------------------------------------------------------------------------------------------------------

HTTP_SERVER = _span("{method} {route}", "server", "One HTTP request, from its headers to the last byte of its answer.")
HTTP_UNROUTED = _span("{method}", "server", "The same, for a path that no route serves.")

QUERY = _span("ragagent.query", "internal", "One answer: cache, retrieval, prompt, generation, citations.")
CACHE = _span("ragagent.cache", "internal", "One look-up through the cache tiers, with the computation on a miss.")
EMBEDDINGS = _span("embeddings {model}", "client", "One batch of texts turned into vectors; internal when embedded.")
RETRIEVAL = _span("retrieval {store}", "client", "One search of one store, both legs and their fusion.")
CHAT = _span("chat {model}", "client", "One generation by a model; internal for the extractive answerer.")
CITATIONS = _span("ragagent.citations.verify", "internal", "Every citation of an answer held against its source.")

INGEST = _span("ragagent.ingest", "consumer", "One job of the indexer, linked to the request that uploaded it.")
INGEST_PARSE = _span("ragagent.ingest.parse", "internal", "A file's bytes turned into text, in a limited process.")
INGEST_CHUNK = _span("ragagent.ingest.chunk", "internal", "Text cut into chunks.")
INDEX_PUBLISH = _span("ragagent.index.publish", "internal", "Delta, lexical commit and manifest made visible.")

RELOAD = _span("ragagent.reload", "internal", "One reload, from SIGHUP to the last worker of the old release gone.")
RELOAD_SPAWN = _span("ragagent.reload.spawn", "internal", "The zygote of the new release started, its code imported.")
RELOAD_READY = _span("ragagent.reload.ready", "internal", "The new workers, until each of them can answer.")
RELOAD_SWITCH = _span("ragagent.reload.switch", "internal", "The new workers put in service.")
RELOAD_DRAIN = _span("ragagent.reload.drain", "internal", "The old workers finishing what they had begun.")
WORKER_SPAWN = _span(
    "ragagent.worker.spawn", "internal", "One child of the supervisor, from its fork until it is ready."
)
WORKER_DRAIN = _span("ragagent.worker.drain", "internal", "One child, from being told to finish until it is gone.")
WORKER_LIFECYCLE = _span(
    "ragagent.worker.lifecycle", "internal", "One child lost, until its successor runs or is lost."
)

# --- Attributes ------------------------------------------------------------------------------------------------------

SERVICE_NAME = _attribute("service.name", "What the operator calls this installation.")
SERVICE_VERSION = _attribute("service.version", "RAGAgent's version.")
SERVICE_INSTANCE_ID = _attribute("service.instance.id", "One process: random, made after the fork.")
PROCESS_PID = _attribute("process.pid", "Process id.")
PROCESS_ROLE = _attribute("ragagent.process.role", "What the process is: supervisor, worker, indexer.")
WORKER_SLOT = _attribute("ragagent.worker.slot", "A worker's stable number; its successor after a crash has the same.")
WORKER_STATE = _attribute("ragagent.worker.state", "What a child does: starting, ready, running, stopping.")
EXIT_REASON = _attribute(
    "ragagent.worker.exit.reason",
    "Why a child ended. Ordered: drain, recycle, dismissed (it never served). By a fault: crash (an exit code), signal "
    "(not ours), hang, killed (beyond a limit). By itself: left.",
)
PROBE_OUTCOME = _attribute("ragagent.probe.outcome", "What a probe of one worker found: ok, not_ready, no_answer.")

ERROR_TYPE = _attribute("error.type", "Our error's code, else the exception's class; an HTTP status for a 5xx answer.")
CANCELLED = _attribute("ragagent.cancelled", "True when the work was given up: the client left, the process stopped.")

HTTP_METHOD = _attribute("http.request.method", "The method; one that HTTP does not define is _OTHER.")
HTTP_ROUTE = _attribute("http.route", "The route's template, as /v1/files/{file_id}; absent when none matched.")
HTTP_STATUS = _attribute("http.response.status_code", "Status of the answer; absent when none was begun.")
URL_SCHEME = _attribute("url.scheme", "Scheme of the request: http, https.")
URL_PATH = _attribute("url.path", "Path without the query string.")
SERVER_ADDRESS = _attribute("server.address", "Host that was asked, ours or the endpoint's.")
SERVER_PORT = _attribute("server.port", "Port that was asked.")
CLIENT_ADDRESS = _attribute("client.address", "The client's network, not its host: /24 of IPv4, /56 of IPv6.")
NETWORK_PROTOCOL_VERSION = _attribute("network.protocol.version", "HTTP version: 1.0, 1.1, 2.")
USER_AGENT = _attribute("user_agent.original", "The client's user-agent header.")
REQUEST_ID = _attribute("ragagent.request.id", "The x-request-id of the answer.")
KEY_ID = _attribute("ragagent.key.id", "Public id of the API key, never its secret.")

GEN_AI_OPERATION = _attribute("gen_ai.operation.name", "What was asked of a model: chat, embeddings, retrieval.")
GEN_AI_PROVIDER = _attribute("gen_ai.provider.name", "Who served it: openai (any compatible endpoint), wordllama, ...")
GEN_AI_REQUEST_MODEL = _attribute("gen_ai.request.model", "The model that was asked for.")
GEN_AI_REQUEST_STREAM = _attribute("gen_ai.request.stream", "True when the answer was asked for in pieces.")
GEN_AI_REQUEST_TEMPERATURE = _attribute("gen_ai.request.temperature", "Sampling temperature.")
GEN_AI_REQUEST_MAX_TOKENS = _attribute("gen_ai.request.max_tokens", "Bound on generated tokens.")
GEN_AI_RESPONSE_MODEL = _attribute("gen_ai.response.model", "The model that answered.")
GEN_AI_RESPONSE_ID = _attribute("gen_ai.response.id", "The endpoint's id of its answer.")
GEN_AI_FINISH_REASONS = _attribute("gen_ai.response.finish_reasons", "Why generation ended, one per choice.")
GEN_AI_FIRST_CHUNK = _attribute("gen_ai.response.time_to_first_chunk", "Seconds until the first piece came.")
GEN_AI_INPUT_TOKENS = _attribute("gen_ai.usage.input_tokens", "Tokens read.")
GEN_AI_OUTPUT_TOKENS = _attribute("gen_ai.usage.output_tokens", "Tokens generated.")
GEN_AI_CACHED_TOKENS = _attribute("gen_ai.usage.cache_read.input_tokens", "Tokens read from the endpoint's cache.")
GEN_AI_TOKEN_TYPE = _attribute("gen_ai.token.type", "Which tokens were counted: input, output.")
GEN_AI_DIMENSIONS = _attribute("gen_ai.embeddings.dimension.count", "Length of a vector.")
GEN_AI_DATA_SOURCE = _attribute("gen_ai.data_source.id", "Id of the store that was searched.")
GEN_AI_TOP_K = _attribute("gen_ai.retrieval.top_k", "Results asked for.")
GEN_AI_CONVERSATION = _attribute("gen_ai.conversation.id", "Id of the conversation that a question belongs to.")
OPENINFERENCE_KIND = _attribute("openinference.span.kind", "Phoenix's kind, where gen_ai has none: CHAIN.")

ANSWER_OUTCOME = _attribute("ragagent.answer.outcome", "How a question ended: answered, refused, no_hits, error.")
CACHE_TIER = _attribute(
    "ragagent.cache.tier", "Where it was looked for: l1, l2, semantic; none: how it was come by that no tier had."
)
CACHE_KIND = _attribute("ragagent.cache.kind", "What is cached: embedding, retrieval, answer.")
CACHE_OUTCOME = _attribute(
    "ragagent.cache.outcome",
    "What the tier said: hit, stale (past its time, served while it is replaced), miss, error. Where neither had it: "
    "computed, received (another process computed it), stale (it could not be computed, and the old value was served).",
)
CACHE_REFUSAL = _attribute(
    "ragagent.cache.refusal",
    "Why bytes were not kept or not believed: too_large, l1, corrupt, expired, foreign, moved.",
)
SEMANTIC_VERDICT = _attribute(
    "ragagent.cache.semantic.verdict", "What a sampled answer of the semantic cache and a new one do: agree, disagree."
)
SESSION_OUTCOME = _attribute(
    "ragagent.session.outcome",
    "What became of a turn: kept, replayed (a retry got it), apart (kept here, others will be told), branched, busy.",
)
RETRIEVAL_STAGE = _attribute("ragagent.retrieval.stage", "Part of a retrieval: embed, search (both legs, fused), text.")
RETRIEVAL_DENSE = _attribute("ragagent.retrieval.dense", "Candidates of the dense leg.")
RETRIEVAL_LEXICAL = _attribute("ragagent.retrieval.lexical", "Candidates of the lexical leg.")
RETRIEVAL_HITS = _attribute("ragagent.retrieval.hits", "Chunks handed on as evidence.")
RETRIEVAL_MAX_SCORE = _attribute("ragagent.retrieval.max_score", "Best fused score, 0..1.")
CITATIONS_KEPT = _attribute("ragagent.citations.kept", "Citations that stand in their source.")
CITATIONS_DROPPED = _attribute("ragagent.citations.dropped", "Citations that do not, and were taken out.")

STORE_ID = _attribute("ragagent.store.id", "Id of a store.")
GENERATION = _attribute("ragagent.index.generation", "Generation that was searched or published.")
DELTA_ROWS = _attribute("ragagent.index.delta_rows", "Rows newer than that generation.")
PUBLISH_KIND = _attribute("ragagent.index.publish.kind", "What was published: delta, generation.")
JOB_ID = _attribute("ragagent.job.id", "Id of an ingest job.")
INGEST_OUTCOME = _attribute("ragagent.ingest.outcome", "How a document's ingest ended: indexed, unchanged, failed.")
INGEST_DOCUMENTS = _attribute("ragagent.ingest.documents", "Documents in the job.")
INGEST_CHUNKS = _attribute("ragagent.ingest.chunks", "Chunks made of them.")
INGEST_BYTES = _attribute("ragagent.ingest.bytes", "Bytes read.")

AUTH_FAILURE = _attribute("ragagent.auth.failure", "Why a caller was refused: the error's code, as invalid_api_key.")
INPUT_REJECTION = _attribute("ragagent.input.rejection", "Why input was refused: the error's code, as too_large.")
LIMIT_POLICY = _attribute(
    "ragagent.limits.policy",
    "The limit that refused: requests, tokens, answers, tenant-requests, tenant-tokens, tenant-answers.",
)
DEPENDENCY = _attribute("ragagent.dependency", "A part that we need and do not own: redis, embedder, generator.")
DB_POOL = _attribute("db.client.connection.pool.name", "The connection pool: redis.")
DB_CONNECTION_STATE = _attribute("db.client.connection.state", "What a pooled connection does: idle, used.")
DB_SYSTEM = _attribute("db.system.name", "The database: redis.")
DB_OPERATION = _attribute("db.operation.name", "The command: MGET, SET, EVALSHA, UNLINK, SCAN, PUBLISH.")
REDIS_NO_REPLY = _attribute(
    "ragagent.redis.no_reply",
    "Why a caller got no reply: open (the breaker is), saturated (no free connection), refused (the server said no), "
    "failed (it did not answer).",
)

RELOAD_OUTCOME = _attribute("ragagent.reload.outcome", "How a reload ended: ok, invalid_config, not_ready, stopped.")
RELOAD_CHANGES = _attribute("ragagent.reload.changes", "The config keys whose values changed.")
RELEASE = _attribute(
    "ragagent.release", "Number of a release, a loaded pair of code and config; of a reload, the new one."
)
RELEASE_PREVIOUS = _attribute("ragagent.release.previous", "Number of the release that went.")
RELEASE_STANDING = _attribute(
    "ragagent.release.standing", "What a release is to the tree: current, incoming, outgoing."
)

# --- Metrics ---------------------------------------------------------------------------------------------------------

# The convention's bounds for HTTP, and 2.0: "answered within two seconds" is the promise that alerts watch.
_HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 2.5, 5.0, 7.5, 10.0)
# The convention's bounds for models, with four below them: the embedded ones answer in less than the first, 10 ms.
_MODEL_SECONDS = (
    *(0.0002, 0.001, 0.0025, 0.005),
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
_STAGE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_LOOKUP_SECONDS = (
    *(0.000005, 0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005),
    *(0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.25),
)
_PUBLISH_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_TOKENS = tuple(float(4**power) for power in range(14))
# A fork takes milliseconds, a start with a large index minutes; a drain ends within its budget.
_PROCESS_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

HTTP_DURATION = Histogram(
    "http.server.request.duration",
    "s",
    "Requests by duration, from the headers to the last byte of the answer.",
    (HTTP_METHOD, URL_SCHEME, HTTP_ROUTE, HTTP_STATUS, NETWORK_PROTOCOL_VERSION, ERROR_TYPE),
    _HTTP_SECONDS,
)
HTTP_ACTIVE = UpDownCounter(
    "http.server.active_requests", "{request}", "Requests in flight.", (HTTP_METHOD, URL_SCHEME)
)
ANSWERS = Counter("ragagent.answers", "{answer}", "Questions by how they ended.", (ANSWER_OUTCOME,))
CACHE_REQUESTS = Counter(
    "ragagent.cache.requests", "{request}", "Look-ups in the cache.", (CACHE_TIER, CACHE_KIND, CACHE_OUTCOME)
)
CACHE_DURATION = Histogram(
    "ragagent.cache.duration",
    "s",
    "Look-ups by duration: those in L2, and one in 64 of those in L1.",
    (CACHE_TIER, CACHE_KIND),
    _LOOKUP_SECONDS,
)
CACHE_ENTRIES = UpDownCounter("ragagent.cache.entries", "{entry}", "Values that L1 holds.")
CACHE_BYTES = UpDownCounter("ragagent.cache.bytes", "By", "Memory that L1 takes, by its own count.")
CACHE_EVICTIONS = Counter("ragagent.cache.evictions", "{entry}", "Values that L1 pushed out for others.")
CACHE_REFUSALS = Counter("ragagent.cache.refusals", "{entry}", "Values not kept or not believed.", (CACHE_REFUSAL,))
CACHE_FLIGHTS = UpDownCounter("ragagent.cache.flights", "{flight}", "Look-ups and computations under way.")
SEMANTIC_SAMPLES = Counter(
    "ragagent.cache.semantic.samples", "{answer}", "Semantic hits computed anew, by verdict.", (SEMANTIC_VERDICT,)
)
SEMANTIC_FALSE_SHARE = Gauge(
    "ragagent.cache.semantic.false_share", "{share}", "Share of the last sampled semantic hits that were wrong, 0..1."
)
SEMANTIC_ON = Gauge("ragagent.cache.semantic.on", "{cache}", "1 while the semantic cache is used, 0 while it is off.")
RETRIEVAL_DURATION = Histogram(
    "ragagent.retrieval.duration", "s", "Searches by duration, whole and by part.", (RETRIEVAL_STAGE,), _STAGE_SECONDS
)
SESSION_TURNS = Counter(
    "ragagent.session.turns", "{turn}", "Turns of sessions by what became of them.", (SESSION_OUTCOME,)
)
GEN_AI_DURATION = Histogram(
    "gen_ai.client.operation.duration",
    "s",
    "Calls to models by duration.",
    (GEN_AI_OPERATION, GEN_AI_PROVIDER, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL, ERROR_TYPE),
    _MODEL_SECONDS,
)
GEN_AI_TOKENS = Histogram(
    "gen_ai.client.token.usage",
    "{token}",
    "Calls to models by tokens read or generated.",
    (GEN_AI_OPERATION, GEN_AI_PROVIDER, GEN_AI_REQUEST_MODEL, GEN_AI_RESPONSE_MODEL, GEN_AI_TOKEN_TYPE),
    _TOKENS,
)
INGESTED_DOCUMENTS = Counter(
    "ragagent.ingest.documents", "{document}", "Documents by how their ingest ended.", (INGEST_OUTCOME,)
)
INGEST_QUEUE_DEPTH = Gauge("ragagent.ingest.queue.depth", "{job}", "Jobs that wait for the indexer.")
INGEST_QUEUE_AGE = Gauge("ragagent.ingest.queue.age", "s", "How long the oldest job has waited.")
INDEX_GENERATION = Gauge(
    "ragagent.index.generation", "{generation}", "Generation that this process searches, per store.", (STORE_ID,)
)
INDEX_DELTA_ROWS = Gauge(
    "ragagent.index.delta_rows", "{row}", "Rows newer than the generation, per store.", (STORE_ID,)
)
PUBLISH_DURATION = Histogram(
    "ragagent.index.publish.duration", "s", "Publications by duration.", (PUBLISH_KIND,), _PUBLISH_SECONDS
)
AUTH_FAILURES = Counter("ragagent.auth.failures", "{request}", "Callers refused.", (AUTH_FAILURE,))
INPUT_REJECTED = Counter(
    "ragagent.input.rejected", "{request}", "Requests refused for their input.", (INPUT_REJECTION,)
)
LIMITS_REFUSED = Counter(
    "ragagent.limits.refused", "{request}", "Requests that a rate limit did not let through.", (LIMIT_POLICY,)
)
LIMITS_DEGRADED = Counter(
    "ragagent.limits.degraded", "{decision}", "Decisions about limits that Redis should have made and did not."
)
REDIS_CONNECTIONS = UpDownCounter(
    "db.client.connection.count", "{connection}", "Connections of the Redis pool.", (DB_POOL, DB_CONNECTION_STATE)
)
REDIS_CONNECTIONS_MAX = UpDownCounter(
    "db.client.connection.max", "{connection}", "Commands that may be under way at once, per process.", (DB_POOL,)
)
REDIS_PENDING = UpDownCounter(
    "db.client.connection.pending_requests", "{request}", "Commands that wait for a free connection.", (DB_POOL,)
)
REDIS_WAIT = Histogram(
    "db.client.connection.wait_time",
    "s",
    "Waits for a free connection, of the commands that had to wait.",
    (DB_POOL,),
    _STAGE_SECONDS,
)
REDIS_TIMEOUTS = Counter(
    "db.client.connection.timeouts", "{timeout}", "Commands that waited for a connection in vain.", (DB_POOL,)
)
REDIS_CONNECTS = Counter("ragagent.redis.connects", "{connection}", "Connections opened.", (DB_POOL,))
REDIS_DURATION = Histogram(
    "db.client.operation.duration",
    "s",
    "Commands to Redis by duration, failed ones included.",
    (DB_SYSTEM, DB_OPERATION, ERROR_TYPE),
    _STAGE_SECONDS,
)
REDIS_NO_REPLIES = Counter(
    "ragagent.redis.no_replies", "{call}", "Calls that went on without Redis, by reason.", (REDIS_NO_REPLY,)
)
REDIS_BREAKER_OPEN = Gauge("ragagent.redis.breaker.open", "{breaker}", "1 while nobody asks Redis, else 0.")
# Not unit "1": Prometheus would turn the name into ragagent_dependency_up_ratio.
DEPENDENCY_UP = Gauge("ragagent.dependency.up", "{dependency}", "1 while it answers, else 0.", (DEPENDENCY,))

WORKERS_UP = UpDownCounter(
    "ragagent.worker.up",
    "{worker}",
    "Children that there are, the indexer included.",
    (PROCESS_ROLE, WORKER_STATE, RELEASE_STANDING),
)
WORKERS_TARGET = UpDownCounter("ragagent.worker.target", "{worker}", "Workers that there should be.")
WORKER_IN_FLIGHT = UpDownCounter(
    "ragagent.worker.in_flight", "{request}", "Requests in flight, by what workers said last.", (WORKER_SLOT,)
)
WORKER_EXITS = Counter(
    "ragagent.worker.exits", "{exit}", "Children that ended, by reason.", (PROCESS_ROLE, EXIT_REASON)
)
WORKER_RESTARTS = Counter(
    "ragagent.worker.restarts",
    "{restart}",
    "Children started in the place of one that was lost, by the reason of the loss.",
    (PROCESS_ROLE, EXIT_REASON),
)
WORKER_SPAWN_DURATION = Histogram(
    "ragagent.worker.spawn.duration", "s", "Starts of children, from fork to ready.", (PROCESS_ROLE,), _PROCESS_SECONDS
)
WORKER_DRAIN_DURATION = Histogram(
    "ragagent.worker.drain.duration",
    "s",
    "Ends of children, from being told to finish to being gone.",
    (PROCESS_ROLE, EXIT_REASON),
    _PROCESS_SECONDS,
)
RELOADS = Counter("ragagent.reloads", "{reload}", "Reloads by how they ended.", (RELOAD_OUTCOME,))
RELOAD_DURATION = Histogram(
    "ragagent.reload.duration", "s", "Reloads, from the request to the end.", (RELOAD_OUTCOME,), _PROCESS_SECONDS
)
PROBE_RESULTS = Counter("ragagent.probe.results", "{probe}", "Probes of workers by what they found.", (PROBE_OUTCOME,))
REPORTS_DROPPED = Counter(
    "ragagent.telemetry.dropped", "{report}", "Reports of the supervisor that its exporter had no room for."
)

# --- The tables ------------------------------------------------------------------------------------------------------

SPANS: tuple[Span, ...] = tuple(_spans)
ATTRIBUTES: tuple[Attribute, ...] = tuple(_attributes)
METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
