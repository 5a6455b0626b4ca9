"""By what code a value was made: a digest of the sources that decide what is found and what is answered.

Settings and models stand in a key by name; what is written in the code (a prompt, a threshold, the order of equal
scores, the shape of what is kept) stands in it by this. So a release that changes any of it never serves what another
made, while both run side by side and share a Redis, and no number has to be raised by hand.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
from collections.abc import Iterator
from importlib.resources.abc import Traversable

from ragagent import __version__

PARTS = ("text.py", "types.py", "index", "providers", "store", "engine/answering", "engine/retrieval")


@functools.cache
def recipe() -> str:
    """Return the digest, 16 characters. Reads about 80 files, once: call it before the fork."""
    # The version alone must do where sources are not shipped.
    digest = hashlib.sha256(__version__.encode())
    package = importlib.resources.files("ragagent")
    for part in PARTS:
        for name, source in _sources(part, package.joinpath(part)):
            digest.update(f"\0{name}\0".encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _sources(name: str, place: Traversable) -> Iterator[tuple[str, Traversable]]:
    if place.is_dir():
        for entry in sorted(place.iterdir(), key=lambda entry: entry.name):
            yield from _sources(f"{name}/{entry.name}", entry)
    elif place.is_file() and name.endswith((".py", ".sql")):
        yield name, place
