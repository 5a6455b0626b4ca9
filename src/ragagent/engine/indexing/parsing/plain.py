"""Plain text and Markdown, and the decoding that every text format shares."""

from __future__ import annotations

import codecs
import re

from ragagent.engine.indexing.parsing.parsed import Source, Unparsable

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    # UTF-32 first: its little-endian mark begins with the mark of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Text may hold tab, newline, form feed, carriage return, backspace (man pages) and escape (logs with colours).
_CONTROL = re.compile(r"[\x00-\x07\x0b\x0e-\x1a\x1c-\x1f\x7f\ufffe\uffff]")
_MAX_CONTROL = 0.005  # the share above which it is no longer text with an accident in it
# GB 2312 keeps punctuation in rows A1-A3 and the 3,755 everyday characters in rows B0-D7. German or Russian text that
# is read as GB18030 falls into the rows of rare characters; Korean falls into these, but without Chinese's commonest.
_RARE_ROWS = bytes(set(range(256)) - {0xA1, 0xA2, 0xA3} - set(range(0xB0, 0xD8)))
_COMMONEST = re.compile("[的一是不了在人有我他这中大来上国个到说们为和地出也时年得就要以会对可后，。、：]")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})", re.MULTILINE)
_HEADING = re.compile(r"^ {0,3}#[ \t]+(?P<title>[^\n]*)$", re.MULTILINE)


def text(data: bytes) -> Source:
    return Source(None, iter((decode(data),)))


def markdown(data: bytes) -> Source:
    """Keep the text verbatim: its marks are structure that both retrieval and people can read."""
    body = decode(data)
    return Source(_first_heading(body), iter((body,)))


def decode(data: bytes) -> str:
    """Return the characters of a text file: by its byte order mark, else UTF-8, else GB18030 if that reads as Chinese.

    Raises Unparsable: the bytes are binary, damaged, or in an encoding that cannot be told from them.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return checked(_decoded(data[len(bom) :], encoding))
    if b"\0" in data[:8192]:
        raise _binary()
    try:
        return checked(data.decode("utf-8"))
    except UnicodeDecodeError:
        return checked(_chinese(data))


def _decoded(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as exc:
        raise Unparsable("invalid_file", f"This file says that it is {encoding.upper()}, but it is not.") from exc


def _chinese(data: bytes) -> str:
    """Decode GB18030 and believe it only if it reads as Chinese: it accepts much Western and Korean 8-bit text, too."""
    try:
        decoded = data.decode("gb18030")
    except UnicodeDecodeError as exc:
        raise _unknown_encoding() from exc
    foreign = "".join(character for character in decoded if character > "\x7f")
    everyday = len(foreign.encode("gb2312", "ignore")[::2].translate(None, _RARE_ROWS))
    if everyday < 0.9 * len(foreign) or len(_COMMONEST.findall(foreign)) < 0.02 * len(foreign):
        raise _unknown_encoding()
    return decoded


def checked(decoded: str) -> str:
    if len(_CONTROL.findall(decoded)) > _MAX_CONTROL * len(decoded):
        raise _binary()
    return decoded


def _binary() -> Unparsable:
    return Unparsable("invalid_file", "This file looks binary; as text it must not hold control characters.")


def _unknown_encoding() -> Unparsable:
    return Unparsable("invalid_file", "This file is neither UTF-8, UTF-16 with a mark, nor GB18030 text.")


def _first_heading(body: str) -> str | None:
    """Return the first `# heading` outside a code fence, where `#` begins a comment."""
    position = 0
    while heading := _HEADING.search(body, position):
        fence = _FENCE.search(body, position, heading.start())
        if fence is None:
            return heading["title"].rstrip("# \t")
        closing = body.find("\n" + fence[1], fence.end())
        if closing < 0:
            return None
        position = closing + len(fence[0]) + 1
    return None
