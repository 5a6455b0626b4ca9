"""The bytes of one cached value: what it is, whose it is, and until when, so that a reader need not trust the store.

    magic 2 | version 1 | codec 1 | digest 16 | facts | payload
    facts: created 8 | fresh until 8 | stale until 8 | error until 8 | delta 4 | flags 1 | key digest 16

Times are Unix milliseconds, big-endian; delta is how many milliseconds the computation took. The key digest refuses a
value that was moved to another key. The digest covers all that follows it, so that no flipped bit changes a value
(without it, 13 of 5,000 random payloads passed as one), and tells each stored value from any other. The payload is
msgpack: plain data, which cannot name code to run. `compressed` makes the form that crosses the network; the digest is
of the plain form, so it also proves that the way back was exact.

A reader trusts nothing here: whatever stands under a key, the worst that `decode` returns is a reason to refuse it.
The digests are against accidents, not against forgers: who may write to our Redis may write us a valid value.
"""

from __future__ import annotations

import hashlib
import struct
from enum import StrEnum
from typing import Any, NamedTuple

import msgpack
import zstandard

from ragagent.cache.life import Life

MAX_PAYLOAD_BYTES = 8 * 1024 * 1024  # before compression; nothing larger is written, so nothing larger is unpacked
COMPRESS_BYTES = 1024  # below this it wins less than it costs
STAMP = slice(4, 20)  # of a blob in either form: the digest

_MAGIC = b"RG\x02"  # with the version: another one is as foreign as anything else
_PLAIN, _ZSTD = b"\x00", b"\x02"
_FACTS = struct.Struct(">QQQQIB16s")
_NOTHING = 1  # a flag
_CODEC_AT = len(_MAGIC)
_FACTS_AT = STAMP.stop
_PAYLOAD_AT = _FACTS_AT + _FACTS.size
_MAX_DELTA = 2**32 - 1

# One thread uses these, the event loop's. They hold no thread and no file, so a fork does not hurt them.
_compressor = zstandard.ZstdCompressor(level=1)
_decompressor = zstandard.ZstdDecompressor()


class Entry(NamedTuple):
    """A value, which can be None, the plain form that it was read from, and its times in Unix seconds.

    `delta` is how many seconds it took to compute; `is_nothing`: it says that there is nothing.
    """

    value: Any
    plain: bytes
    created: float
    fresh_until: float
    stale_until: float
    error_until: float
    delta: float
    is_nothing: bool

    @property
    def gone_at(self) -> float:
        """When it serves no purpose any more."""
        return max(self.fresh_until, self.stale_until, self.error_until)


class Refused(StrEnum):
    """Why bytes are no value: every reason is a miss, and the bytes should go."""

    FOREIGN = "foreign"  # not our format, or another version of it
    MOVED = "moved"  # the value of another key
    CORRUPT = "corrupt"
    EXPIRED = "expired"


def encode(
    key: str, value: Any, life: Life, now: float, *, delta: float = 0.0, is_nothing: bool = False
) -> bytes | None:
    """Return the plain form of `value`, whose `life` begins `now`; None if it is too large or too deep.

    Raises TypeError: the value is not made of dict, list, str, bytes, int, float, bool and None. That is a bug.
    """
    try:
        payload = msgpack.packb(value, unicode_errors="surrogatepass")
    except (ValueError, OverflowError):
        return None  # An integer of more than 64 bits, or nesting without end: user data can hold either.
    if len(payload) > MAX_PAYLOAD_BYTES:
        return None
    fresh_until = now + life.fresh
    facts = _FACTS.pack(
        int(now * 1000),
        int(fresh_until * 1000),
        int((fresh_until + life.stale) * 1000),
        int((fresh_until + life.on_error) * 1000),
        min(int(delta * 1000), _MAX_DELTA),
        _NOTHING if is_nothing else 0,
        _digest(key.encode()),
    )
    return b"".join((_MAGIC, _PLAIN, _digest(facts + payload), facts, payload))


def decode(key: str, blob: bytes, now: float) -> Entry | Refused:
    """Return the entry that `blob`, in either form, holds for `key`, or why there is none. Never raises."""
    plain = expanded(blob)
    if isinstance(plain, Refused):
        return plain
    if plain[STAMP] != _digest(memoryview(plain)[_FACTS_AT:]):
        return Refused.CORRUPT
    if _FACTS.unpack_from(plain, _FACTS_AT)[-1] != _digest(key.encode()):
        return Refused.MOVED
    try:
        entry = trusted(plain)
    except (ValueError, TypeError, msgpack.UnpackException):
        # The digest is right, so a peer wrote this: one with another idea of what is plain. TypeError: a list as a key.
        return Refused.CORRUPT
    return entry if entry.gone_at > now else Refused.EXPIRED


def trusted(plain: bytes) -> Entry:
    """Return the entry of a plain form that this process has encoded or decoded before: nothing is verified again."""
    created, fresh, stale, error, delta, flags, _ = _FACTS.unpack_from(plain, _FACTS_AT)
    payload = memoryview(plain)[_PAYLOAD_AT:]
    value = msgpack.unpackb(payload, strict_map_key=False, unicode_errors="surrogatepass", ext_hook=_no_extension)
    return Entry(
        value, plain, created / 1000, fresh / 1000, stale / 1000, error / 1000, delta / 1000, flags & _NOTHING != 0
    )


def compressed(plain: bytes) -> bytes:
    """Return the form for the network: compressed where that makes it smaller, else `plain` itself."""
    payload = memoryview(plain)[_PAYLOAD_AT:]
    if len(payload) <= COMPRESS_BYTES:
        return plain
    frame = _compressor.compress(payload)
    if len(frame) >= len(payload):
        return plain  # Vectors, mostly: their bytes are noise to it.
    return b"".join((_MAGIC, _ZSTD, plain[_CODEC_AT + 1 : _PAYLOAD_AT], frame))


def expanded(blob: bytes) -> bytes | Refused:
    """Return the plain form of `blob`, not verified yet. Unpacks to MAX_PAYLOAD_BYTES at most."""
    if len(blob) < _PAYLOAD_AT or not blob.startswith(_MAGIC):
        return Refused.FOREIGN
    codec = blob[_CODEC_AT : _CODEC_AT + 1]
    if codec == _PLAIN:
        return blob
    if codec != _ZSTD:
        return Refused.FOREIGN
    frame = memoryview(blob)[_PAYLOAD_AT:]
    try:
        # First: where a frame declares its size, `max_output_size` is ignored, and all of it is allocated.
        if not 0 <= zstandard.frame_content_size(frame) <= MAX_PAYLOAD_BYTES:
            return Refused.CORRUPT
        payload = _decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError:
        return Refused.CORRUPT
    return b"".join((_MAGIC, _PLAIN, blob[_CODEC_AT + 1 : _PAYLOAD_AT], payload))


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _no_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"Extension type {code} is not plain data.")
