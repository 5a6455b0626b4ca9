from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import Result

from fake_ragagent import FakeRagagent

Run = Callable[..., Result]


def hit(text: str, score: float, **attributes: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {"file_id": "file-1", "filename": "a.md", "score": score, "attributes": attributes, "content": content}


@pytest.fixture(autouse=True)
def store(ask: Run, fake: FakeRagagent) -> None:
    ask("store", "create", "default")
    fake.hits = [hit("Send SIGHUP to reload.", 0.97, path="docs/a.md"), hit("Nothing\x1b[2J here.", 0.1)]


def test_hits_are_ranked_with_score_name_and_snippet(ask: Run) -> None:
    assert ask("search", "reload").stdout.splitlines() == [
        " 1 0.970  docs/a.md",
        "   Send SIGHUP to reload.",
        " 2 0.100  a.md",
        "   Nothing[2J here.",
    ]


def test_the_querys_words_are_marked_on_a_terminal_only(ask: Run) -> None:
    marked = click.style("reload", bold=True)
    assert marked in ask("search", "reload", color=True).stdout
    assert "\x1b" not in ask("search", "reload").stdout
    assert "\x1b" not in ask("search", "reload", color=True, NO_COLOR="1").stdout


def test_what_was_asked_for_reaches_the_server(ask: Run, fake: FakeRagagent) -> None:
    ask("search", "如何", "--store", "default", "-k", "3", "--filter", "year=2024", "--filter", "team=a")
    year, team = ({"type": "eq", "key": "year", "value": 2024}, {"type": "eq", "key": "team", "value": "a"})
    filters = {"type": "and", "filters": [year, team]}
    assert fake.requests[-1].json == {"query": "如何", "max_num_results": 3, "filters": filters}


def test_json_is_the_servers_page(ask: Run, fake: FakeRagagent) -> None:
    assert json.loads(ask("search", "reload", "--json").stdout)["data"] == fake.hits


def test_nothing_found_is_no_failure(ask: Run, fake: FakeRagagent) -> None:
    fake.hits = []
    result = ask("search", "reload")
    assert (result.exit_code, result.stdout) == (0, "Nothing found.\n")


@pytest.mark.parametrize("arguments", [[], ["q", "-k", "0"], ["q", "-k", "51"], ["q", "--filter", "x"]])
def test_wrong_usage_is_exit_code_2(ask: Run, arguments: list[str]) -> None:
    assert ask("search", *arguments).exit_code == 2
