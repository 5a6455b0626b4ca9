"""`/healthz`: this process is up. `/readyz`: it can answer, and how well each part that it leans on does."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ragagent.api.services import services


async def healthz(_: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> JSONResponse:
    checks = await services(request).checks()
    ready = checks["database"] == "ok" and checks["index"] == "ok"
    return JSONResponse({"status": "ready" if ready else "unavailable", "checks": dict(checks)}, 200 if ready else 503)


routes = [Route("/healthz", healthz), Route("/readyz", readyz)]
