"""Word documents: their text in order; bombs and damage refused before they cost anything."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import docx
import pytest

from ragagent.engine.indexing.parsing.parse import parse
from ragagent.engine.indexing.parsing.parsed import Unparsable


def word() -> bytes:
    document = docx.Document()
    document.core_properties.title = "The Title"
    document.add_heading("Opening hours", level=1)
    document.add_paragraph("Every day.").add_run("\tBut Monday.")
    table = document.add_table(rows=2, cols=2)
    for number, text in enumerate(("Day", "Hours", "周二", "9–5")):
        table.cell(number // 2, number % 2).text = text
    document.add_paragraph("The end.")
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def _edited(edit: Callable[[str, bytes], bytes], **added: bytes) -> bytes:
    """Return the document with every part passed through `edit`, and parts added."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(word())) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, edit(name, old.read(name)))
        for name, data in added.items():
            new.writestr(name, data)
    return out.getvalue()


def _refused(data: bytes) -> str:
    with pytest.raises(Unparsable) as raised:
        parse("a.docx", data, max_chars=1_000_000)
    assert raised.value.code == "invalid_file"
    return raised.value.message


def test_paragraphs_headings_and_tables_are_read_in_order() -> None:
    parsed = parse("a.docx", word(), max_chars=1_000_000)
    assert [line.rstrip() for line in parsed.text.strip().split("\n")] == [
        "Opening hours",
        "",
        "Every day.\tBut Monday.",
        "",
        "Day | Hours",
        "周二 | 9–5",
        "",
        "The end.",
    ]
    assert parsed.title == "The Title"


def test_a_zip_bomb_is_refused_by_its_directory() -> None:
    assert "would unpack to" in _refused(_edited(lambda name, data: data, bomb=b"\0" * 50_000_000))


def test_too_many_parts_are_refused() -> None:
    many = {f"part{number}": b"x" for number in range(5_000)}
    assert "the limit is 5,000" in _refused(_edited(lambda name, data: data, **many))


def test_a_directory_that_lies_about_a_size_cannot_unpack_more() -> None:
    data = bytearray(_edited(lambda name, part: part, bomb=b"\0" * 50_000_000))
    size = (50_000_000).to_bytes(4, "little")
    while (at := data.find(size)) >= 0:
        data[at : at + 4] = (10).to_bytes(4, "little")
    # Nothing reads the part, or its check sum fails: the text is there, or it is refused; memory is not spent.
    assert "The end." in parse("a.docx", bytes(data), max_chars=1_000_000).text


def test_external_entities_are_not_read() -> None:
    def attack(name: str, data: bytes) -> bytes:
        if name != "word/document.xml":
            return data
        evil = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd"><!ENTITY a "aaaa">]>'
        head, _, rest = data.partition(b"?>")
        return head + b"?>" + evil + rest.replace(b"The end.", b"The &e;&a; end.")

    try:
        text = parse("a.docx", _edited(attack), max_chars=1_000_000).text
    except Unparsable:
        return
    assert "root:" not in text
    assert "aaaa" not in text


def test_another_zip_is_not_a_word_document() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", "text")
    assert "not a Word document" in _refused(out.getvalue())


@pytest.mark.parametrize("cut", [30, 500, -10])
def test_a_damaged_archive_is_refused(cut: int) -> None:
    assert "damaged" in _refused(word()[:cut])


def test_damaged_xml_is_refused() -> None:
    assert "damaged" in _refused(_edited(lambda name, data: data[:200] if name == "word/document.xml" else data))
