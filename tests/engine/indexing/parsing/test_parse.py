"""The dispatcher: the name chooses, the content has to agree, and hostile bytes meet one kind of error."""

from __future__ import annotations

import io
import logging
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragagent.engine.indexing.parsing.parse import FORMATS, parse
from ragagent.engine.indexing.parsing.parsed import Unparsable

_PIECES = st.sampled_from(
    [
        b"%PDF-1.7\n",
        b"1 0 obj\n<< /Length 9 >>\nstream\n",
        b"endstream endobj xref\n",
        b"trailer << /Root 1 0 R /Size 2 >>\nstartxref\n9\n",
        b"%%EOF",
        *(b"PK\x03\x04", b"\x00", b"\xff\xfe", b"\xd6\xd0", "汉".encode(), b"\n", b"```\n# "),
        *(b"{", b'{"a":', b"[", b'"', b",", b"<p>", b"<table><td>", b"<title>", b"&b;"),
        b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
    ]
)
_HOSTILE = st.one_of(st.binary(max_size=300), st.lists(_PIECES, max_size=30).map(b"".join))


def _refused(name: str, data: bytes, max_chars: int = 1000) -> Unparsable:
    with pytest.raises(Unparsable) as raised:
        parse(name, data, max_chars=max_chars)
    return raised.value


@pytest.fixture(autouse=True)
def _quiet_pypdf(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "pypdf")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(extension=st.sampled_from([*FORMATS, "bin", ""]), data=_HOSTILE)
def test_any_bytes_under_any_name_are_text_or_unparsable(extension: str, data: bytes) -> None:
    try:
        text = parse(f"a.{extension}", data, max_chars=100_000).text
    except Unparsable:
        return
    assert text.strip()
    assert "\0" not in text
    assert "\r" not in text
    text.encode()


@settings(max_examples=100, deadline=None)
@given(parts=st.dictionaries(st.sampled_from(["word/document.xml", "_rels/.rels", "x"]), _HOSTILE))
def test_any_package_is_text_or_unparsable(parts: dict[str, bytes]) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        package.writestr("[Content_Types].xml", "<Types/>")
        for name, data in parts.items():
            package.writestr(name, data)
    assert _refused("a.docx", out.getvalue()).code == "invalid_file"


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("a.txt", b"", "invalid_file"),
        ("a.txt", b" \n", "invalid_file"),
        ("a.txt", b"%PDF-1.4 renamed", "invalid_file"),
        ("a.md", b"PK\x03\x04renamed", "invalid_file"),
        ("a.docx", b"%PDF-1.4", "invalid_file"),
        ("a.pdf", b"PK\x03\x04", "invalid_file"),
        ("a.xlsx", b"PK\x03\x04", "unsupported_file"),
        ("a.exe", b"MZ\x00\x00", "unsupported_file"),
        ("noname", b"\x00\x01", "unsupported_file"),
    ],
)
def test_each_refusal_has_its_code(name: str, data: bytes, code: str) -> None:
    refused = _refused(name, data)
    assert refused.code == code
    assert refused.message.endswith(".")


@pytest.mark.parametrize("name", ["README", "main.rs", "A.TXT", "notes.Md", "archive.tar.conf"])
def test_text_of_no_known_format_is_read_as_text(name: str) -> None:
    assert parse(name, b"plain text", max_chars=1000).text == "plain text"


def test_more_text_than_allowed_is_refused() -> None:
    assert "more than 1,000 characters" in _refused("a.txt", b"x" * 1001).message
    assert len(parse("a.txt", b"x" * 1000, max_chars=1000).text) == 1000


def test_five_megabytes_in_one_line_are_read() -> None:
    assert len(parse("a.txt", b"word " * 1_000_000, max_chars=20_000_000).text) == 5_000_000


def test_a_title_is_one_line_of_at_most_200_characters() -> None:
    title = parse("a.html", b"<title>" + b"long\nword " * 100 + b"</title><p>x", max_chars=1000).title
    assert title is not None
    assert len(title) <= 200
    assert "\n" not in title
