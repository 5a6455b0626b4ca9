"""SIGTERM ends a command as Ctrl-C does: what it has begun is taken back. Without this it would just be gone."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def orderly() -> Iterator[None]:
    """Have SIGTERM raise SystemExit in the block, with the exit code that a shell gives it."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
