"""Fixtures that every floor may use. Real parts only: see tests/scenarios/ for whole servers."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
