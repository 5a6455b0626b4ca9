"""The application: its routes, and its middleware as one visible list, outermost first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from ragagent.api import (
    cache,
    chat,
    documents,
    embeddings,
    files,
    health,
    jobs,
    limit_headers,
    models,
    responses,
    sessions,
    stored_responses,
    vector_store_files,
    vector_stores,
)
from ragagent.api.auth import Authenticate
from ragagent.api.body_limit import BodyLimit
from ragagent.api.limiting import Limit
from ragagent.api.observe import Observe
from ragagent.api.problems import Problems, http_exception
from ragagent.api.security_headers import SecurityHeaders
from ragagent.api.services import Services

EXPOSED = [
    "x-request-id",
    "x-ragagent-seq",
    "x-ragagent-generation",
    "x-ragagent-cache",
    *sessions.HEADERS,
    "server-timing",
    # The official client for browsers waits and retries by these.
    "retry-after",
    "x-should-retry",
    "openai-poll-after-ms",
    *limit_headers.NAMES,
]

routes = [
    *health.routes,
    *models.routes,
    *embeddings.routes,
    *files.routes,
    *vector_stores.routes,
    *vector_store_files.routes,
    *chat.routes,
    *responses.routes,
    *stored_responses.routes,
    *documents.routes,
    *jobs.routes,
    *sessions.routes,
    *cache.routes,
]


def build(services: Services, lifespan: Callable[[], AbstractAsyncContextManager[None]] | None = None) -> Starlette:
    config = services.config
    middleware = [
        Middleware(Observe, access_log=config.server.access_log),
        Middleware(SecurityHeaders),
        *_cors(config.auth.cors_origins),
        Middleware(Problems),
        Middleware(Authenticate, access=services.access),
        Middleware(Limit, limiter=services.limiter, answer_tokens=config.generator.max_tokens),
        Middleware(BodyLimit, max_bytes=config.server.max_body_bytes, seconds=config.server.body_seconds),
    ]

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        if lifespan is None:
            yield
            return
        async with lifespan():
            yield

    app = Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={HTTPException: http_exception},
        lifespan=life,
    )
    app.state.services = services
    # Behind a proxy that ends TLS the redirect would lead to http://, and the key would go there in the clear.
    app.router.redirect_slashes = False
    return app


def _cors(origins: Sequence[str]) -> list[Middleware]:
    """Open the API to pages of these origins; without any it is closed, and preflights are requests like others."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            # Any: the official client sends a dozen x-stainless-... of its own. The key is in a header, not in a
            # cookie, so a page can do no more than whoever gave it the key.
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
    ]
