"""Word documents: python-docx opens the package, and its XML is walked once, in document order.

Its XML parser resolves no entities and opens no network connection. What it would unpack is added up from the zip's
directory first; zipfile never unpacks more of an entry than the directory says.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

from docx import Document
from docx.oxml.ns import qn
from lxml import etree

from ragagent.engine.indexing.parsing.parsed import Source, Unparsable

_MAX_UNPACKED_BYTES = 200 * 1024 * 1024
_MAX_RATIO = 100
_MAX_ENTRIES = 5_000

_TEXT = qn("w:t")
_IN_LINE = {qn("w:tab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
_PARAGRAPH, _TABLE, _ROW, _CELL = qn("w:p"), qn("w:tbl"), qn("w:tr"), qn("w:tc")
# Properties hold tab stops that are no tabs; what was deleted is not the text; a fallback repeats a choice.
_SKIPPED = frozenset(
    (
        qn("w:tabs"),
        qn("w:del"),
        qn("w:moveFrom"),
        "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
    )
)


def body(data: bytes) -> Source:
    """Read paragraphs, headings and tables; a row of a table is a line, its cells are set apart by " | "."""
    _check_package(data)
    # python-docx lets out what lxml, zipfile and its own look-ups raise on a damaged package.
    try:
        document = Document(io.BytesIO(data))
        title = document.core_properties.title
    except MemoryError:
        raise
    except Exception as exc:
        raise Unparsable("invalid_file", "This Word document is damaged and cannot be opened.") from exc
    return Source(title, _blocks(document.element.body))


def _check_package(data: bytes) -> None:
    """Refuse what is no Word document, and what is small only while it is packed."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            entries = package.infolist()
    # zipfile's own checks let struct.error, ValueError and NotImplementedError through.
    except Exception as exc:
        raise Unparsable("invalid_file", "This Word document is damaged: its zip directory cannot be read.") from exc
    if len(entries) > _MAX_ENTRIES:
        raise Unparsable(
            "invalid_file", f"This Word document has {len(entries):,} parts; the limit is {_MAX_ENTRIES:,}."
        )
    if "[Content_Types].xml" not in {entry.filename for entry in entries}:
        raise Unparsable("invalid_file", "This file is a zip archive, but not a Word document (.docx).")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > _MAX_UNPACKED_BYTES or unpacked > _MAX_RATIO * len(data):
        raise Unparsable(
            "invalid_file",
            f"This Word document would unpack to {unpacked:,} bytes, {unpacked // len(data):,} times its size; "
            f"at most {_MAX_UNPACKED_BYTES:,} bytes and {_MAX_RATIO} times are unpacked.",
        )


def _blocks(root: etree._Element) -> Iterator[str]:
    """Yield the text: a blank line between paragraphs and around a table, none between its rows."""
    depth = 0  # of tables in tables: only an outer row ends a line
    first_cell = False
    walk = etree.iterwalk(root, events=("start", "end"))
    for event, element in walk:
        tag = element.tag
        if event == "end":
            depth -= tag == _TABLE
            yield _after(tag, depth)
        elif tag in _SKIPPED:
            walk.skip_subtree()
        elif tag == _TEXT:
            yield element.text or ""
        elif tag == _CELL:
            yield "" if first_cell else "| "
            first_cell = False
        else:
            depth += tag == _TABLE
            first_cell |= tag == _ROW
            yield _IN_LINE.get(tag, "")


def _after(tag: str, depth: int) -> str:
    """Return what separates an element that ends from the next; inside a cell everything stays in one line."""
    if tag == _PARAGRAPH:
        return " " if depth else "\n\n"
    if tag == _ROW:
        return "\n" if depth == 1 else " "
    return "\n" if tag == _TABLE and not depth else ""
