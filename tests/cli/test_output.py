from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from ragagent.cli.output import Output, clean, cut, duration, flat, reporting, size, span, table
from ragagent.errors import NotFound


@click.command()
@reporting
def failing(out: Output) -> None:
    raise NotFound("Store 'x'\x1b[2J is not there.", param="store")


def test_an_error_is_one_line_on_stderr_and_exit_code_1() -> None:
    result = CliRunner().invoke(failing, [])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: Store 'x'[2J is not there.\n"


def test_with_json_an_error_is_also_the_one_document() -> None:
    result = CliRunner().invoke(failing, ["--json"])
    assert result.exit_code == 1
    error = {"message": "Store 'x'[2J is not there.", "param": "store", "code": "not_found"}
    assert json.loads(result.stdout) == {"error": error}
    assert result.stderr.count("\n") == 1


def test_clean_keeps_lines_and_takes_what_commands_a_terminal() -> None:
    assert clean("a\tb\n中\x1b]0;title\x07\r\x9b31m\x00") == "a\tb\n中]0;title31m"


def test_columns_align_also_under_chinese_names() -> None:
    text = click.unstyle(table(("NAME", "N"), [("说明书", 5), ("abc", 1234), ("", None)]))
    assert text.splitlines() == [
        "NAME       N",
        "说明书     5",
        "abc     1234",
        "-          -",
    ]


def test_a_cell_stays_in_its_line() -> None:
    assert click.unstyle(table(("A",), [("x\ny\x1b[1m",)])).splitlines() == ["A", "x y[1m"]


def test_a_fraction_is_shown_with_one_digit() -> None:
    assert click.unstyle(table(("A",), [(1.25,), (10.0,), (None,)])).splitlines() == ["   A", " 1.2", "10.0", "   -"]


def test_flat_text_is_one_line() -> None:
    assert flat(" a\n\tb\x1b[2J ") == "a b[2J"


@pytest.mark.parametrize(
    ("limit", "text"), [(9, "ab说明"), (6, "ab说明"), (5, "ab说…"), (4, "ab…"), (3, "ab…"), (1, "…"), (0, "")]
)
def test_what_is_cut_fits_with_its_ellipsis(limit: int, text: str) -> None:
    assert cut("ab说明", limit) == text
    assert span(text) <= max(limit, 0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0314, "31 ms"),
        (12.9, "12 s"),
        (200, "3 m 20 s"),
        (3600, "1 h 0 m"),
        (2 * 86_400 + 4 * 3600, "2 d 4 h"),
    ],
)
def test_durations_are_told_in_two_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 40, "5.0 TiB")])
def test_sizes_are_told_in_binary_units(count: int, text: str) -> None:
    assert size(count) == text
