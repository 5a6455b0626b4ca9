"""Servers for scenarios. One is shared by the tests of a file, where they do not hurt it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import servers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Running]:
    with servers.server(tmp_path_factory.mktemp("server")) as running:
        yield running
