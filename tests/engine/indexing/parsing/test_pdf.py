"""PDF: text by page, and a reason where there is none."""

from __future__ import annotations

import io
import logging

import pytest
from pypdf import PdfReader, PdfWriter

from ragagent.engine.indexing.parsing.parse import parse
from ragagent.engine.indexing.parsing.parsed import Unparsable


def pdf(*pages: str) -> bytes:
    """Write a PDF by hand: a page of Helvetica for each text; an empty text is a page without any."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        lines = " T* ".join(f"({line}) Tj" for line in text.splitlines())
        content = f"BT /F1 12 Tf 14 TL 72 720 Td {lines} ET" if text else ""
        resources = f"/Resources << /Font << /F1 3 0 R >> >> /Contents {5 + 2 * number} 0 R"
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] {resources} >>")
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    body, offsets = "%PDF-1.4\n", []
    for number, item in enumerate(objects, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{item}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    trailer = f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return f"{body}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}".encode("latin-1")


def _encrypted(user: str, owner: str, title: str = "") -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf("Secret text"))))
    writer.add_metadata({"/Title": title})
    writer.encrypt(user_password=user, owner_password=owner, algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def _refused(data: bytes) -> Unparsable:
    with pytest.raises(Unparsable) as raised:
        parse("a.pdf", data, max_chars=1_000_000)
    return raised.value


def test_pages_are_read_in_order_with_a_blank_line_between() -> None:
    text = parse("a.pdf", pdf("First page\nsecond line", "Last page"), max_chars=1_000_000).text
    assert text.split() == "First page second line Last page".split()
    assert "\n\nLast page" in text


def test_an_encrypted_pdf_says_so() -> None:
    refused = _refused(_encrypted("user", "owner"))
    assert refused.code == "invalid_file"
    assert "encrypted" in refused.message


def test_an_empty_user_password_opens() -> None:
    parsed = parse("a.pdf", _encrypted("", "owner", "My title"), max_chars=1_000_000)
    assert parsed.text.strip() == "Secret text"
    assert parsed.title == "My title"


def test_pages_without_text_are_said_to_be_scans() -> None:
    assert "OCR" in _refused(pdf("", "")).message


@pytest.mark.parametrize("cut", [20, 200, 400, -30])
def test_damage_is_either_mended_or_refused(cut: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "pypdf")
    data = pdf("Some text")[:cut]
    try:
        text = parse("a.pdf", data, max_chars=1_000_000).text
    except Unparsable:
        return
    assert text.strip() == "Some text"


def test_text_that_is_named_pdf_is_refused() -> None:
    assert "named .pdf, but it is not a PDF" in _refused(b"plain text").message
