"""What an operator deploys: a directory with `app.py`, rewritten for each new release."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

_SOURCE = (Path(__file__).parent / "app.py").read_text()


@contextlib.contextmanager
def deployment() -> Iterator[Path]:
    """Yield a directory with the first release in it."""
    with tempfile.TemporaryDirectory(prefix="ragagent-bench-") as name:
        directory = Path(name)
        deploy(directory, 1)
        yield directory


def deploy(directory: Path, version: int, *, startup_seconds: float = 0.0, broken: bool = False) -> None:
    """Put another release there; a `broken` one has a syntax error."""
    source = _SOURCE.replace("VERSION = 1\n", f"VERSION = {version}\n")
    source = source.replace("STARTUP_SECONDS = 0.0\n", f"STARTUP_SECONDS = {startup_seconds}\n")
    (directory / "app.py").write_text(source + ("def broken(:\n" if broken else ""))
