from __future__ import annotations

import click
import pytest

from ragagent.cli.snippet import snippet

FILLER = "nothing of interest stands here. " * 20


def bold(text: str) -> str:
    return click.style(text, bold=True)


def test_a_short_text_is_shown_whole_and_in_one_line() -> None:
    assert snippet("one\n two\tthree", "zzz") == "one two three"


def test_the_part_with_most_of_the_querys_words_is_shown() -> None:
    text = f"reload. {FILLER} Send SIGHUP to reload the workers. {FILLER}"
    shown = click.unstyle(snippet(text, "reload workers SIGHUP"))
    assert "Send SIGHUP to reload the workers." in shown
    assert shown.startswith("…")
    assert shown.endswith("…")
    assert len(shown) <= 242


def test_inflected_words_are_marked() -> None:
    assert snippet("It reloads; reloading is safe.", "reload") == f"It {bold('reloads')}; {bold('reloading')} is safe."


def test_chinese_words_are_marked_inside_a_run() -> None:
    assert snippet("可以重新加载配置", "重新加载吗") == f"可以{bold('重新')}{bold('加载')}配置"


def test_a_query_is_no_pattern_and_its_small_words_mark_nothing() -> None:
    assert snippet("a (b) c.* of", "of a (.*") == "a (b) c.* of"


def test_a_document_cannot_command_the_terminal() -> None:
    assert snippet("evil \x1b[2J text", "q") == "evil [2J text"


@pytest.mark.parametrize("query", ["", "???", "的"])
def test_any_query_gives_a_snippet(query: str) -> None:
    assert len(click.unstyle(snippet(FILLER, query))) <= 242
