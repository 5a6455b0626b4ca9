"""`/v1/models`: the profiles that answer, and the embedder."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ragagent.api.replies import JSON
from ragagent.api.services import Services, services
from ragagent.config import Profile
from ragagent.errors import NotFound


def profile(app: Services, model: str) -> Profile:
    """Return the profile that `model` names. Raises NotFound, naming those there are."""
    found = app.config.profile.get(model)
    if found is None:
        known = ", ".join(f"'{name}'" for name in app.config.profile)
        raise _no_model(model, f"; there are: {known}.")
    return found


def _no_model(name: str, rest: str) -> NotFound:
    return NotFound(f"The model '{name}' does not exist{rest}", param="model", code="model_not_found")


async def index(request: Request) -> JSONResponse:
    app = services(request)
    return JSONResponse({"object": "list", "data": [_model(app, name) for name in _names(app)]})


async def show(request: Request) -> JSONResponse:
    app, name = services(request), request.path_params["model"]
    if name not in _names(app):
        raise _no_model(name, ".")
    return JSONResponse(_model(app, name))


def _names(app: Services) -> list[str]:
    return [*app.config.profile, app.embedders.default.model]


def _model(app: Services, name: str) -> JSON:
    return {"id": name, "object": "model", "created": app.started_at, "owned_by": "ragagent"}


routes = [Route("/v1/models", index), Route("/v1/models/{model:path}", show)]
