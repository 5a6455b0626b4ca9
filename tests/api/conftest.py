"""A fresh application for each test; see tests/application.py for what it is made of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from application import TEXTS, Api, running


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as opened:
        yield opened


@pytest.fixture
async def facts(api: Api) -> str:
    """Return the id of a store that has texts in two languages."""
    return await api.store(**TEXTS, 长城="长城是中国古代的军事防御工程。长城的总长度为21196千米，修建于多个朝代。")
