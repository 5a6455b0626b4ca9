"""How far a command is, on stderr, where a person watches; pipes, logs and --json see nothing of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def progress(label: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar until the block ends; give what takes the bytes that were done since it was last called."""
    hidden = quiet or not sys.stderr.isatty()
    with click.progressbar(length=max(total, 1), label=label, hidden=hidden, file=sys.stderr) as bar:
        yield bar.update
