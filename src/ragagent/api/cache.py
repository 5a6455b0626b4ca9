"""`/v1/ragagent/cache`: what the worker that answers knows of its cache, and the purge of the caller's tenant.

There is no key that sees all tenants, so what concerns all of them is done where the server runs: `ragagent cache`.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ragagent.api.schemas.body import read
from ragagent.api.schemas.cache import CachePurge
from ragagent.api.services import caller, services
from ragagent.errors import Forbidden


async def show(request: Request) -> JSONResponse:
    return JSONResponse({"object": "ragagent.cache", **services(request).caches.stats()})


async def purge(request: Request) -> JSONResponse:
    asked = await read(request, CachePurge, optional=True)
    if asked.scope == "all":
        raise Forbidden(
            "A key sees one tenant. For all of them use 'ragagent cache purge --all' where the server runs."
        )
    purged = await services(request).caches.purge(caller(request), asked.kind)
    return JSONResponse(
        {
            "object": "ragagent.cache.purge",
            "scope": asked.scope,
            "kind": asked.kind,
            "local": purged.local,
            "redis": purged.remote,
            "complete": purged.complete,
        }
    )


routes = [
    Route("/v1/ragagent/cache", show),
    Route("/v1/ragagent/cache/purge", purge, methods=["POST"]),
]
