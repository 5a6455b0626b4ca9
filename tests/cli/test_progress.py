from __future__ import annotations

import io
import sys

import pytest

from ragagent.cli.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "quiet", "is_shown"), [(Terminal, False, True), (Terminal, True, False), (io.StringIO, False, False)]
)
def test_only_a_person_sees_it(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], quiet: bool, is_shown: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", told := stream())
    with progress("backup", 10, quiet=quiet) as advance:
        advance(5)
        advance(5)
    assert ("100%" in told.getvalue()) == is_shown


def test_nothing_to_do_is_no_error() -> None:
    with progress("backup", 0, quiet=False) as advance:
        advance(0)
