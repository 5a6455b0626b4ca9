from __future__ import annotations

import pytest

from ragagent.errors import Damaged
from ragagent.index import sealed


def test_what_was_sealed_reads_back() -> None:
    fields = {"rows": [1, 2], "model": "模型"}
    assert sealed.unseal(sealed.seal(fields)) == fields


def test_every_flipped_bit_and_every_truncation_is_noticed() -> None:
    data = sealed.seal({"a": 1})
    flips = [data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for at in range(len(data)) for bit in range(8)]
    for broken in (*flips, *(data[:length] for length in range(len(data))), data + b"\n"):
        with pytest.raises(Damaged):
            sealed.unseal(broken)


def test_a_line_of_something_else_is_damage() -> None:
    with pytest.raises(Damaged, match="holds a list"):
        sealed.unseal(sealed.seal([1]))  # type: ignore[arg-type]
