"""The bytes of one cached value: what it is, whose it is, and until when, so that a reader need not trust the store.

    magic 2 | version 1 | codec 1 | digest 16 | created 8 | expires 8 | key digest 16 | payload

Times are Unix milliseconds, big-endian. The key digest refuses a value that was moved to another key. The digest covers
all that follows it, so that no flipped bit changes a value (without it, 13 of 5,000 random payloads passed as one). The
payload is msgpack: plain data, which cannot name code to run. `compressed` makes the form that crosses the network; the
digest is of the plain form, so it also proves that the way back was exact.

A reader trusts nothing here: whatever stands under a key, the worst that `decode` returns is a reason to refuse it.
The digests are against accidents, not against forgers: who may write to our Redis may write us a valid value.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgpack

MAX_PAYLOAD_BYTES = 8 * 1024 * 1024  # before compression; nothing larger is written, so nothing larger is inflated
COMPRESS_BYTES = 1024  # below this zlib wins less than it costs

_MAGIC = b"RG\x01"  # with the version: another one is as foreign as anything else
_PLAIN, _ZLIB = b"\x00", b"\x01"
_FACTS = struct.Struct(">QQ16s")
_CODEC_AT = len(_MAGIC)
_DIGEST_AT = _CODEC_AT + 1
_FACTS_AT = _DIGEST_AT + 16
_PAYLOAD_AT = _FACTS_AT + _FACTS.size


@dataclass(frozen=True, slots=True)
class Entry:
    """A value that may be served, which can be None, and the plain form that it was read from."""

    value: Any
    plain: bytes
    created: float
    expires: float


class Refused(StrEnum):
    """Why bytes are no value: every reason is a miss, and the bytes should go."""

    FOREIGN = "foreign"  # not our format, or another version of it
    MOVED = "moved"  # the value of another key
    CORRUPT = "corrupt"
    EXPIRED = "expired"


def encode(key: str, value: Any, ttl: float, now: float) -> bytes | None:
    """Return the plain form of `value`, which lives `ttl` seconds from `now`; None if it is too large or too deep.

    Raises TypeError: the value is not made of dict, list, str, bytes, int, float, bool and None. That is a bug.
    """
    try:
        payload = msgpack.packb(value, unicode_errors="surrogatepass")
    except (ValueError, OverflowError):
        return None  # An integer of more than 64 bits, or nesting without end: user data can hold either.
    if len(payload) > MAX_PAYLOAD_BYTES:
        return None
    body = _FACTS.pack(int(now * 1000), int((now + ttl) * 1000), _digest(key.encode())) + payload
    return b"".join((_MAGIC, _PLAIN, _digest(body), body))


def decode(key: str, blob: bytes, now: float) -> Entry | Refused:
    """Return the entry that `blob`, in either form, holds for `key`, or why there is none. Never raises."""
    plain = expanded(blob)
    if isinstance(plain, Refused):
        return plain
    if plain[_DIGEST_AT:_FACTS_AT] != _digest(memoryview(plain)[_FACTS_AT:]):
        return Refused.CORRUPT
    _, expires, owner = _FACTS.unpack_from(plain, _FACTS_AT)
    if owner != _digest(key.encode()):
        return Refused.MOVED
    if expires <= now * 1000:
        return Refused.EXPIRED
    try:
        return trusted(plain)
    except (ValueError, TypeError, msgpack.UnpackException):
        # The digest is right, so a peer wrote this: one with another idea of what is plain. TypeError: a list as a key.
        return Refused.CORRUPT


def trusted(plain: bytes) -> Entry:
    """Return the entry of a plain form that this process has encoded or decoded before: nothing is verified again."""
    created, expires, _ = _FACTS.unpack_from(plain, _FACTS_AT)
    payload = memoryview(plain)[_PAYLOAD_AT:]
    value = msgpack.unpackb(payload, strict_map_key=False, unicode_errors="surrogatepass", ext_hook=_no_extension)
    return Entry(value, plain, created / 1000, expires / 1000)


def compressed(plain: bytes) -> bytes:
    """Return the form for the network: deflated where that makes it smaller, else `plain` itself."""
    payload = memoryview(plain)[_PAYLOAD_AT:]
    if len(payload) <= COMPRESS_BYTES:
        return plain
    deflated = zlib.compress(payload, level=1)
    if len(deflated) >= len(payload):
        return plain  # Vectors, mostly: their bytes are noise to zlib.
    return b"".join((_MAGIC, _ZLIB, plain[_DIGEST_AT:_PAYLOAD_AT], deflated))


def expanded(blob: bytes) -> bytes | Refused:
    """Return the plain form of `blob`, not verified yet. Inflates to MAX_PAYLOAD_BYTES at most."""
    if len(blob) < _PAYLOAD_AT or not blob.startswith(_MAGIC):
        return Refused.FOREIGN
    codec = blob[_CODEC_AT:_DIGEST_AT]
    if codec == _PLAIN:
        return blob
    if codec != _ZLIB:
        return Refused.FOREIGN
    inflater = zlib.decompressobj()
    try:
        payload = inflater.decompress(memoryview(blob)[_PAYLOAD_AT:], MAX_PAYLOAD_BYTES)
    except zlib.error:
        return Refused.CORRUPT
    if not inflater.eof or inflater.unused_data:
        return Refused.CORRUPT  # Cut short, followed by something, or a bomb: what is left of it stays packed.
    return b"".join((_MAGIC, _PLAIN, blob[_DIGEST_AT:_PAYLOAD_AT], payload))


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _no_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"Extension type {code} is not plain data.")
