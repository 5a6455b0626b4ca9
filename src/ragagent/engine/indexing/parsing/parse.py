"""From a file's name and bytes to its text: one table of formats, one clean-up, one budget for all of them.

The name chooses the format and the bytes have to agree with it: a program that was renamed to .txt must not be
indexed as noise. Parsers see hostile input; in production this runs in the process that `process.py` starts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from ragagent.engine.indexing.parsing import html, office, pdf, plain, records, table
from ragagent.engine.indexing.parsing.parsed import Parsed, Source, Unparsable

FORMATS: dict[str, Callable[[bytes], Source]] = {
    "txt": plain.text,
    "text": plain.text,
    "log": plain.text,
    "md": plain.markdown,
    "markdown": plain.markdown,
    "html": html.page,
    "htm": html.page,
    "xhtml": html.page,
    "csv": table.rows,
    "tsv": table.rows,
    "json": records.document,
    "jsonl": records.lines,
    "ndjson": records.lines,
    "pdf": pdf.pages,
    "docx": office.body,
}

_SUPPORTED = "txt, md, html, pdf, docx, csv, json and jsonl"
# The first bytes that give a format away, however the file is called.
_MAGIC = ((b"%PDF-", "pdf"), (b"PK\x03\x04", "docx"))
_BINARY = {"pdf": "a PDF", "docx": "a Word document (.docx)"}


def parse(filename: str, data: bytes, *, max_chars: int) -> Parsed:
    """Return the text of a document of at most `max_chars` characters, and its title where it names one.

    Pure, deterministic and slow. Raises Unparsable whatever the bytes are, and MemoryError where memory is limited.
    """
    extension = _extension(filename)
    read = FORMATS.get(extension)
    _agree(extension, data)
    try:
        source = read(data) if read else _unknown(extension, data)
        text = _collect(source.pieces, max_chars)
    except RecursionError as exc:
        raise Unparsable("invalid_file", "This file is nested too deeply to be read.") from exc
    if not text or text.isspace():
        raise Unparsable("invalid_file", _no_text(extension))
    return Parsed(text, _title(source.title))


def _extension(filename: str) -> str:
    return filename.rpartition(".")[2].strip().lower() if "." in filename else ""


def _agree(extension: str, data: bytes) -> None:
    """Refuse content that is plainly of another format than the name says."""
    if not data:
        raise Unparsable("invalid_file", "This file is empty.")
    # Readers accept a PDF header anywhere in the first 1,024 bytes, and so do people's files.
    looks = "pdf" if extension == "pdf" and b"%PDF-" in data[:1024] else None
    looks = looks or next((format for magic, format in _MAGIC if data.startswith(magic)), None)
    if looks == extension or (looks is None and extension not in _BINARY):
        return
    if extension in _BINARY:
        raise Unparsable("invalid_file", f"This file is named .{extension}, but it is not {_BINARY[extension]}.")
    if extension not in FORMATS:
        raise _unsupported(extension)
    raise Unparsable("invalid_file", f"This file is named .{extension}, but it looks binary.")


def _unknown(extension: str, data: bytes) -> Source:
    """Read a file of no format that we know: source code, configuration and logs are text, whatever they are called."""
    try:
        return plain.text(data)
    except Unparsable as exc:
        raise _unsupported(extension) from exc


def _unsupported(extension: str) -> Unparsable:
    named = f"Files named .{extension}" if extension else "Binary files without an extension"
    return Unparsable("unsupported_file", f"{named} cannot be read; supported are {_SUPPORTED}.")


def _collect(pieces: Iterable[str], max_chars: int) -> str:
    """Join the pieces, cleaned, and stop at the first one that is too much."""
    kept: list[str] = []
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > max_chars:
            raise Unparsable("invalid_file", f"This file holds more than {max_chars:,} characters of text.")
        kept.append(piece)
    return _clean("".join(kept))


def _clean(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    # A lone surrogate (JSON's "\ud800", a broken PDF font) can be stored by nobody: not SQLite, not UTF-8, not JSON.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _title(title: str | None) -> str | None:
    """Return the first 200 characters of the title in one line, or None where nothing is left."""
    words = itertools.islice(_clean(title or "")[:1000].split(), 100)
    return " ".join(words)[:200].rstrip() or None


def _no_text(extension: str) -> str:
    if extension == "pdf":
        return "There is no text in this PDF. Its pages may be scanned images; text recognition (OCR) is not built in."
    return "There is no text in this file."
