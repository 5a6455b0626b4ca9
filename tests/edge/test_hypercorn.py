"""The contract with Hypercorn: every name that the edge relies on beyond its documented interface.

When this fails after an upgrade, read `ragagent/edge/` against the new release before touching the pin.
"""

from __future__ import annotations

import inspect
from typing import Any

import hypercorn.protocol
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol

from ragagent.edge import protocols


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_tcp_server_takes_what_we_give_it() -> None:
    assert parameters(TCPServer) == ["app", "loop", "config", "context", "state", "reader", "writer"]
    assert inspect.iscoroutinefunction(TCPServer._read_data)
    assert "self.idle_task = AsyncioSingleTask()" in inspect.getsource(TCPServer)
    assert "await self._read_data()" in inspect.getsource(TCPServer.run)


def test_worker_context_ends_by_terminated() -> None:
    context = WorkerContext(None)
    assert parameters(WorkerContext) == ["max_requests"]
    assert not context.terminated.is_set()
    assert inspect.iscoroutinefunction(context.terminated.set)


def test_app_wrapper_takes_one_application() -> None:
    assert parameters(ASGIWrapper) == ["app"]


def test_config_has_every_key_that_we_set() -> None:
    for name in ("keep_alive_timeout", "keep_alive_max_requests", "read_timeout", "include_server_header"):
        assert hasattr(Config, name)
    for name in ("accesslog", "errorlog"):
        assert hasattr(Config, name)


def test_protocols_are_looked_up_where_we_install_ours() -> None:
    protocols.install()
    assert vars(hypercorn.protocol)["H2Protocol"] is protocols.Http2
    assert vars(hypercorn.protocol)["H11Protocol"] is protocols.Http1
    source = inspect.getsource(ProtocolWrapper)
    assert "H2Protocol(" in source
    assert "H11Protocol(" in source


def test_what_the_protocols_override_is_still_there() -> None:
    assert "self.streams: dict" in inspect.getsource(H2Protocol.__init__)
    assert "self.streams[event.stream_id].handle(" in inspect.getsource(H2Protocol._handle_events)
    assert parameters(H11Protocol._check_protocol) == ["self", "event"]
    assert "await self._check_protocol(event)" in inspect.getsource(H11Protocol._handle_events)
