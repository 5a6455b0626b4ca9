from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ragagent.cli.tail import Tail
from ragagent.errors import Unavailable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "log"
    found.write_text("one\ntwo\nthree\n")
    return found


@pytest.fixture
def tail(path: Path) -> Iterator[Tail]:
    found = Tail(path)
    yield found
    found.close()


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_the_last_lines_are_as_many_as_asked_for(tail: Tail, count: int) -> None:
    assert tail.last(count) == (["one", "two", "three"][-count:] if count else [])


def test_the_last_lines_of_a_large_file_span_its_blocks(path: Path, tail: Tail) -> None:
    lines = [f"{number} " + "中" * 500 for number in range(300)]
    path.write_text("".join(f"{line}\n" for line in lines))
    assert tail.last(200) == lines[-200:]


def test_an_empty_file_has_no_lines(path: Path, tail: Tail) -> None:
    path.write_text("")
    assert tail.last(5) == []
    assert tail.fresh() == []


def test_only_what_is_new_follows_and_a_line_when_it_is_whole(path: Path, tail: Tail) -> None:
    append(path, "four, be")
    assert tail.last(1) == ["three"]
    assert tail.fresh() == []
    append(path, "gun\nfive\nsi")
    assert tail.fresh() == ["four, begun", "five"]
    append(path, "x\n")
    assert tail.fresh() == ["six"]


def test_bytes_that_are_no_text_do_not_end_it(path: Path, tail: Tail) -> None:
    with path.open("ab") as file:
        file.write(b"caf\xe9\r\n")
    assert tail.last(1) == ["caf�"]


def test_a_file_cut_short_is_read_from_its_start(path: Path, tail: Tail) -> None:
    tail.last(1)
    path.write_text("new\n")
    assert tail.fresh() == ["new"]


def test_across_a_rotation_no_line_is_lost(path: Path, tail: Tail) -> None:
    tail.last(1)
    moved = path.rename(path.with_suffix(".1"))
    append(moved, "four\n")
    assert tail.fresh() == ["four"], "moved away, and not yet opened anew"
    append(path, "five\n")
    append(moved, "written by a process that has not heard of it, whole\nand in p")
    assert tail.fresh() == ["written by a process that has not heard of it, whole"]
    append(moved, "art")
    assert tail.fresh() == ["and in part", "five"]
    append(path, "six\n")
    assert tail.fresh() == ["six"]


def test_two_rotations_are_two_rotations(path: Path, tail: Tail) -> None:
    tail.last(0)
    for number in range(2):
        path.rename(path.with_suffix(f".{number}"))
        append(path, f"{number}\n")
        assert tail.fresh() + tail.fresh() == [str(number)]


def test_a_file_that_is_not_there_is_unavailable_by_name(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"none\.log' cannot be read: No such file"):
        Tail(tmp_path / "none.log")
