"""PDF by pypdf: pure Python, so that a hostile file can at worst be slow or large, which the parser process limits."""

from __future__ import annotations

import io
from collections.abc import Iterator

from pypdf import PasswordType, PdfReader

from ragagent.engine.indexing.parsing.parsed import Source, Unparsable


def pages(data: bytes) -> Source:
    """Read the pages in order, a blank line between them. A PDF that opens with an empty password is not locked."""
    # pypdf lets out whatever its lists, dictionaries and codecs raise on a damaged file: there is no class to name.
    try:
        reader = PdfReader(io.BytesIO(data), strict=False)
        locked = reader.is_encrypted and reader.decrypt("") is PasswordType.NOT_DECRYPTED
        title = None if locked else _title(reader)
    except MemoryError:
        raise
    except Exception as exc:
        raise Unparsable("invalid_file", f"This PDF is damaged and cannot be opened ({_reason(exc)}).") from exc
    if locked:
        raise Unparsable("invalid_file", "This PDF is encrypted; upload it without its password.")
    return Source(title, _texts(reader))


def _texts(reader: PdfReader) -> Iterator[str]:
    number = 0
    try:
        for page in reader.pages:
            number += 1
            yield page.extract_text().replace("\f", "\n\n") + "\n\n"
    except MemoryError:
        raise
    except Exception as exc:
        raise Unparsable("invalid_file", f"This PDF is damaged on page {number} ({_reason(exc)}).") from exc


def _title(reader: PdfReader) -> str | None:
    title = reader.metadata.title if reader.metadata else None
    return title if isinstance(title, str) else None


def _reason(exc: Exception) -> str:
    return " ".join(str(exc).split())[:200] or type(exc).__name__
