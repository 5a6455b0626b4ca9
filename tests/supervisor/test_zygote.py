"""The zygote's own steps: a reason that fits one line, a life that ends with a code."""

from __future__ import annotations

import json
import socket
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ragagent.config import Config
from ragagent.errors import EXIT_CANNOT_START, EXIT_CONFIG, ConfigError
from ragagent.lifeline import Lifeline
from ragagent.supervisor.zygote import live, prepare, reason


@pytest.fixture
def ends() -> Iterator[tuple[Lifeline, socket.socket]]:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        yield Lifeline(theirs), ours


def module(main: Callable[..., Any], **more: Any) -> types.ModuleType:
    made = types.ModuleType("made")
    vars(made).update(main=main, **more)
    return made


def raising(exc: Exception) -> Callable[..., Any]:
    def main(*_: Any) -> int:
        raise exc

    return main


def test_life_ends_with_the_code_that_main_returns(ends: tuple[Lifeline, socket.socket]) -> None:
    assert live(module(lambda *_: 5), Config(), 0, (), ends[0]) == 5


@pytest.mark.parametrize(
    ("exc", "code"),
    [(ConfigError("no such model"), EXIT_CONFIG), (RuntimeError("no such model"), EXIT_CANNOT_START)],
)
def test_failure_is_told_before_the_end(ends: tuple[Lifeline, socket.socket], exc: Exception, code: int) -> None:
    lifeline, supervisor = ends
    assert live(module(raising(exc)), Config(), 0, (), lifeline) == code
    assert "no such model" in json.loads(supervisor.recv(4096))["failed"]


def test_reason_is_one_line_with_the_place() -> None:
    try:
        raising(ValueError("one\ntwo"))()
    except ValueError as exc:
        text = reason(exc)
    assert text.startswith("ValueError: one two (")
    assert "test_zygote.py" in text
    assert "raise exc" in text
    assert "\n" not in text


def test_module_is_prepared_if_it_wants_to_be() -> None:
    seen: list[Config] = []
    config = Config()
    prepare(module(print), config)
    prepare(module(print, prepare=seen.append), config)
    assert seen == [config]
