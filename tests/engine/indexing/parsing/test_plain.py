"""Text files: every common encoding is read as what it is, and what is not text is refused."""

from __future__ import annotations

import pytest

from ragagent.engine.indexing.parsing.parse import parse
from ragagent.engine.indexing.parsing.parsed import Unparsable

CHINESE = "杭州是浙江省的省会，位于中国的东南沿海。西湖在这里，来的人很多。"


def _read(data: bytes, name: str = "a.txt") -> str:
    return parse(name, data, max_chars=1_000_000).text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "gb18030", "gbk", "gb2312"])
def test_chinese_is_read_in_its_encodings(encoding: str) -> None:
    assert _read(CHINESE.encode(encoding)) == CHINESE


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Zürich liegt schön; die Straßen heißen ähnlich.", "latin-1"),
        ("Привет, как дела? Сегодня хорошая погода", "cp1251"),
        ("대한민국의 수도는 서울이다 그리고 부산은 큰 도시이다", "euc-kr"),
        ("日本の首都は東京です", "shift-jis"),
    ],
)
def test_other_eight_bit_encodings_are_refused_rather_than_read_as_chinese(text: str, encoding: str) -> None:
    with pytest.raises(Unparsable, match=r"neither UTF-8.*nor GB18030") as raised:
        _read(text.encode(encoding))
    assert raised.value.code == "invalid_file"


def test_text_is_kept_verbatim_but_for_line_ends() -> None:
    assert _read(b"a\r\n\r\n  b\t c \rd\x0c\n") == "a\n\n  b\t c \nd\x0c\n"


@pytest.mark.parametrize("data", [b"\x7fELF\x02\x01\x01\x00\x00", bytes(range(32)) * 8, b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_binary_that_is_named_txt_is_refused(data: bytes) -> None:
    with pytest.raises(Unparsable, match=r"looks binary|neither UTF-8"):
        _read(data)


def test_a_single_stray_nul_is_dropped() -> None:
    text = "word " * 4000
    assert _read(text.encode() + b"\0end") == text + "end"


def test_truncated_utf16_says_so() -> None:
    with pytest.raises(Unparsable, match="UTF-16-LE, but it is not"):
        _read("汉字".encode("utf-16") + b"x")


@pytest.mark.parametrize(
    ("body", "title"),
    [
        ("# Title\n\ntext", "Title"),
        ("intro\n\n## Second\n# First #\n", "First"),
        ("```sh\n# comment\n```\n# Real\n", "Real"),
        ("~~~\n# never closed", None),
        ("#hashtag\ntext", None),
    ],
)
def test_markdown_keeps_its_text_and_names_its_first_heading(body: str, title: str | None) -> None:
    parsed = parse("a.md", body.encode(), max_chars=1000)
    assert (parsed.text, parsed.title) == (body, title)
