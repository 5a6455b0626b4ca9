"""What the connections of one server share, whichever lane they are on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ragagent.edge.connection import Hypercorn
from ragagent.edge.guard import App


@dataclass(frozen=True)
class Lanes:
    app: App
    state: dict[str, Any]  # What the lifespan hands to every request.
    idle_seconds: float
    hypercorn: Hypercorn
    is_llhttp: bool
