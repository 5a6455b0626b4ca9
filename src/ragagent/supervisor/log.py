"""One line per event on stderr, the same shape in every process of the tree."""

from __future__ import annotations

import logging
import sys

FORMAT = "%(asctime)s %(levelname)-7s %(name)s[%(process)d] %(message)s"


def configure(level: str) -> None:
    """Send our records of `level` ("debug" … "error") and above to stderr, and the warnings of what we build on."""
    logging.basicConfig(stream=sys.stderr, level="WARNING", format=FORMAT, force=True)
    logging.getLogger("ragagent").setLevel(level.upper())
