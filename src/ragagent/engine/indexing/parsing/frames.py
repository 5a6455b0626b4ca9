"""The language between the indexer and its parser: a length, a JSON header, a body of bytes.

4 bytes   length of the header      big-endian
8 bytes   length of the body        big-endian
header    a JSON object
body      the document one way, its text the other
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

_LENGTHS = struct.Struct(">IQ")
# The other side may be lying: it has read a hostile document.
_MAX_HEADER_BYTES = 64 * 1024
_READ_BYTES = 1024 * 1024


def send(peer: socket.socket, header: Mapping[str, Any], body: bytes = b"", *, deadline: float | None = None) -> None:
    """Send one frame. Raises TimeoutError at `deadline` (monotonic seconds), OSError when the peer is gone."""
    encoded = json.dumps(header).encode()
    peer.settimeout(_left(deadline))
    peer.sendall(_LENGTHS.pack(len(encoded), len(body)) + encoded)
    peer.settimeout(_left(deadline))
    peer.sendall(body)


def receive(peer: socket.socket, *, max_bytes: int, deadline: float | None = None) -> tuple[dict[str, Any], bytearray]:
    """Return the next frame. Raises EOFError when the peer closed, ValueError for a frame that is none."""
    header_length, body_length = _LENGTHS.unpack(_exactly(peer, _LENGTHS.size, deadline))
    if header_length > _MAX_HEADER_BYTES or body_length > max_bytes:
        raise ValueError(f"A frame of {header_length} + {body_length} bytes is more than was asked for.")
    header = json.loads(_exactly(peer, header_length, deadline))
    if not isinstance(header, dict):
        raise ValueError("A frame's header is not an object.")
    return header, _exactly(peer, body_length, deadline)


def _exactly(peer: socket.socket, length: int, deadline: float | None) -> bytearray:
    data = bytearray()
    while len(data) < length:
        peer.settimeout(_left(deadline))
        received = peer.recv(min(length - len(data), _READ_BYTES))
        if not received:
            raise EOFError("The peer has closed the connection.")
        data += received
    return data


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
