"""A sealed line: a checksum and JSON, of which no bit can change unseen. Manifests and lists of checksums are such."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

from ragagent.errors import Damaged


def seal(fields: Mapping[str, Any]) -> bytes:
    body = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def unseal(data: bytes) -> dict[str, Any]:
    """Return the fields in `data`. Raises Damaged when one bit of it is not what was written."""
    body = data[9:-1]
    # The checksum is compared as it is written, so that its own letters are held as tightly as the rest.
    if data != b"%08x %s\n" % (zlib.crc32(body), body):
        raise Damaged(f"{len(data)} bytes do not match their checksum.")
    fields = json.loads(body)
    if not isinstance(fields, dict):
        raise Damaged(f"A sealed line holds a {type(fields).__name__}.")
    return fields
