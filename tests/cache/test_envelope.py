from __future__ import annotations

import os
import pickle
import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ragagent.cache import envelope
from ragagent.cache.envelope import Entry, Refused
from ragagent.cache.life import Life

KEY = "rag:1:{0123456789abcdef}:answer:00ff"
PAYLOAD_AT = envelope._PAYLOAD_AT
NOW = 1_700_000_000.0
LIFE = Life(60, stale=10, on_error=30)
ANSWER = {"text": "Paris is the capital of France. " * 60, "citations": [{"quote": "Paris", "start": 0}]}
SCALAR = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
PLAIN = st.recursive(
    SCALAR | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(-9, 9), inner, max_size=4),
    max_leaves=20,
)


def encoded(value: Any = ANSWER, key: str = KEY, life: Life = LIFE) -> bytes:
    plain = envelope.encode(key, value, life, NOW, delta=0.25)
    assert plain is not None
    return plain


def signed(payload: bytes) -> bytes:
    """Forge what only a peer that writes another format could: a right digest over a wrong payload."""
    body = encoded(None)[20:PAYLOAD_AT] + payload
    return encoded(None)[:4] + envelope._digest(body) + body


@given(PLAIN)
def test_a_value_comes_back_as_it_was_in_either_form(value: Any) -> None:
    plain = encoded(value)
    for form in (plain, envelope.compressed(plain)):
        entry = envelope.decode(KEY, form, NOW)
        assert isinstance(entry, Entry)
        assert entry == Entry(value, plain, NOW, NOW + 60, NOW + 70, NOW + 90, 0.25, is_nothing=False)
    assert envelope.trusted(plain).value == value


def test_half_a_surrogate_pair_survives() -> None:
    entry = envelope.decode(KEY, encoded("\ud83d"), NOW)
    assert isinstance(entry, Entry)
    assert entry.value == "\ud83d"


def test_text_shrinks_and_noise_stays_as_it_is() -> None:
    assert len(envelope.compressed(encoded())) < len(encoded()) / 5
    noise = encoded(os.urandom(4096))
    assert envelope.compressed(noise) is noise
    small = encoded("a" * 1000)
    assert envelope.compressed(small) is small


def test_it_lives_until_its_time_and_not_a_millisecond_longer() -> None:
    blob = encoded()
    assert isinstance(envelope.decode(KEY, blob, NOW + 89.999), Entry)
    assert envelope.decode(KEY, blob, NOW + 90) is Refused.EXPIRED


def test_a_value_moved_to_another_key_is_refused() -> None:
    assert envelope.decode(KEY + "0", encoded(), NOW) is Refused.MOVED


def test_another_version_is_foreign() -> None:
    assert envelope.decode(KEY, b"RG\x01" + encoded()[3:], NOW) is Refused.FOREIGN


@given(st.binary(max_size=400) | st.binary(max_size=400).map(lambda tail: b"RG\x02" + tail))
@settings(max_examples=500)
def test_no_bytes_raise_or_pass(blob: bytes) -> None:
    assert isinstance(envelope.decode(KEY, blob, NOW), Refused)


@given(st.booleans(), st.data())
@settings(max_examples=500)
def test_no_damaged_byte_changes_a_value(compress: bool, data: st.DataObject) -> None:
    """A compressor can spell one text in many ways, so a flipped bit in it may be harmless; that is all it may be."""
    blob = bytearray(envelope.compressed(encoded()) if compress else encoded())
    at = data.draw(st.integers(0, len(blob) - 1))
    blob[at] ^= data.draw(st.integers(1, 255))
    entry = envelope.decode(KEY, bytes(blob), NOW)
    assert isinstance(entry, Refused) or (compress and entry.plain == encoded())


@given(st.booleans(), st.data())
def test_what_is_cut_short_or_followed_by_something_is_refused(compress: bool, data: st.DataObject) -> None:
    blob = envelope.compressed(encoded()) if compress else encoded()
    assert isinstance(envelope.decode(KEY, blob[: data.draw(st.integers(0, len(blob) - 1))], NOW), Refused)
    assert isinstance(envelope.decode(KEY, blob + data.draw(st.binary(min_size=1, max_size=9)), NOW), Refused)


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_a_signed_payload_of_another_format_never_raises(payload: bytes) -> None:
    entry = envelope.decode(KEY, signed(payload), NOW)
    assert isinstance(entry, Refused) or entry.plain.endswith(payload)


@pytest.mark.parametrize(
    "payload",
    [
        msgpack.packb(msgpack.ExtType(5, b"x")),
        msgpack.packb([]) * 2,
        b"\x81\x90\xc0",  # a list as a map key
        b"\x91" * 5000 + b"\xc0",  # nested too deep
        b"\xdd\xff\xff\xff\xff",  # an array that claims four billion items
        b"\xa1\xff",  # text that is not UTF-8
        b"",
    ],
)
def test_signed_but_not_plain_is_corrupt(payload: bytes) -> None:
    assert envelope.decode(KEY, signed(payload), NOW) is Refused.CORRUPT


def bomb(frame: bytes) -> bytes:
    return b"RG\x02\x02" + encoded()[4:PAYLOAD_AT] + frame


def test_a_bomb_is_refused_before_it_unfolds() -> None:
    zeros = bytes(256 * 1024 * 1024)
    told = zstandard.ZstdCompressor().compress(zeros)
    untold = zstandard.ZstdCompressor(write_content_size=False).compress(zeros)
    del zeros
    assert zstandard.frame_content_size(untold) == -1
    tracemalloc.start()
    try:
        for frame in (told, untold):
            assert len(frame) < 64 * 1024
            assert envelope.decode(KEY, bomb(frame), NOW) is Refused.CORRUPT
        assert tracemalloc.get_traced_memory()[1] < envelope.MAX_PAYLOAD_BYTES
    finally:
        tracemalloc.stop()


def test_a_frame_that_says_less_than_it_holds_is_refused() -> None:
    """The size is in the frame's head, eight bytes behind its magic number and descriptor."""
    frame = bytearray(zstandard.ZstdCompressor().compress(bytes(100_000)))
    at = bytes(frame).index((100_000).to_bytes(4, "little"))
    for size in (10, 99_999, 100_001):
        frame[at : at + 4] = size.to_bytes(4, "little")
        assert envelope.decode(KEY, bomb(bytes(frame)), NOW) is Refused.CORRUPT


def test_the_largest_value_survives_compression() -> None:
    words = random.Random(7).choices([b"cache ", b"tier ", b"flight ", b"key "], k=2_000_000)
    largest = b"".join(words)[: envelope.MAX_PAYLOAD_BYTES - struct.calcsize(">BI")]
    entry = envelope.decode(KEY, envelope.compressed(encoded(largest)), NOW)
    assert isinstance(entry, Entry)
    assert entry.value == largest
    assert envelope.encode(KEY, largest + b"\x00", LIFE, NOW) is None


def test_what_user_data_can_hold_and_msgpack_cannot_is_not_kept() -> None:
    deep: list[Any] = []
    for _ in range(2000):
        deep = [deep]
    assert envelope.encode(KEY, {"year": 2**70}, LIFE, NOW) is None
    assert envelope.encode(KEY, deep, LIFE, NOW) is None


def test_what_is_not_plain_is_a_bug() -> None:
    with pytest.raises(TypeError):
        envelope.encode(KEY, object(), LIFE, NOW)


class _Evil:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return (Path.touch, (self.witness,))


def test_no_stored_bytes_run_code(tmp_path: Path) -> None:
    payload = pickle.dumps(_Evil(tmp_path / "ran"))
    assert envelope.decode(KEY, payload, NOW) is Refused.FOREIGN
    assert envelope.decode(KEY, signed(payload), NOW) is Refused.CORRUPT
    assert not (tmp_path / "ran").exists()
