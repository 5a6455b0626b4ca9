"""What to purge."""

from __future__ import annotations

from typing import Literal

from ragagent.api.schemas.body import Schema
from ragagent.api.schemas.fields import Name


class CachePurge(Schema):
    scope: Literal["tenant", "all"] = "tenant"
    kind: Name | None = None
