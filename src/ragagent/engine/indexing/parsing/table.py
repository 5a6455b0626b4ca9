"""CSV and TSV: each row becomes a paragraph of one line, `column: value; column: value`, that can be read by itself."""

from __future__ import annotations

import csv
import io
import itertools
import sys
from collections.abc import Iterator, Sequence

from ragagent.engine.indexing.parsing import plain
from ragagent.engine.indexing.parsing.parsed import Source, Unparsable

_DELIMITERS = ",;\t|"
_SAMPLE_CHARS = 64 * 1024
_SAMPLE_ROWS = 20

# Of the whole process, the module has no other; the budget of characters is what limits a cell here.
csv.field_size_limit(sys.maxsize)


def rows(data: bytes) -> Source:
    text = plain.decode(data)
    return Source(None, _lines(text, _delimiter(text[:_SAMPLE_CHARS])))


def _lines(text: str, delimiter: str) -> Iterator[str]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        filled = (row for row in reader if any(cell.strip() for cell in row))
        header = [name.strip() for name in next(filled, [])]
        first = next(filled, None)
        if first is None:
            # A header alone is still text that someone uploaded.
            yield "; ".join(name for name in header if name)
            return
        for row in itertools.chain((first,), filled):
            yield _line(header, row) + "\n\n"
    except csv.Error as exc:
        reason = f"{exc} in line {reader.line_num}"
        raise Unparsable("invalid_file", f"This file is not CSV that can be read: {reason}.") from exc


def _line(header: Sequence[str], row: Sequence[str]) -> str:
    """Name each cell that is not blank; the cells beyond the header have no name to go by."""
    named = itertools.zip_longest(header[: len(row)], (" ".join(cell.split()) for cell in row), fillvalue="")
    return "; ".join(f"{name}: {cell}" if name else cell for name, cell in named if cell)


def _delimiter(sample: str) -> str:
    """Return the delimiter that cuts most of the first rows into the same number of cells, and more than one.

    csv.Sniffer also guesses quotes, with expressions whose time grows with the square of a hostile sample.
    """
    return max(_DELIMITERS, key=lambda candidate: _agreement(sample, candidate))


def _agreement(sample: str, delimiter: str) -> tuple[int, int]:
    reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
    try:
        widths = [len(row) for row in itertools.islice(reader, _SAMPLE_ROWS) if row]
    except csv.Error:
        return 0, 0
    width = widths[0] if widths else 0
    return (widths.count(width), width) if width > 1 else (0, 0)
