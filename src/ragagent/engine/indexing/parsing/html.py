"""HTML, as the text that a reader sees: no scripts, no styles, no navigation; blocks on lines of their own.

lxml's HTML parser knows no entities but HTML's own and opens no network connection; `huge_tree` stays off, so that
libxml2's own limits (256 levels, 10 MB in one text) hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree

from ragagent.engine.indexing.parsing import plain
from ragagent.engine.indexing.parsing.parsed import Source, Unparsable

_DROPPED = frozenset("script style nav template noscript head svg math iframe object select button".split())
_HEADINGS = frozenset("h1 h2 h3 h4 h5 h6".split())
_PARAGRAPHS = _HEADINGS | frozenset(
    "p div section article main header footer aside blockquote pre ul ol dl table figure form fieldset hr body".split()
)
_LINES = frozenset("br li dt dd tr caption figcaption legend summary details option address".split())
_CELLS = frozenset(("td", "th"))

_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s{0,9}=\s{0,9}[\"']?\s{0,9}([\w.:-]{1,40})", re.IGNORECASE)
_SPACE = re.compile(r"[ \t\n\f\r]+")


def page(data: bytes) -> Source:
    parser = etree.HTMLParser(encoding="utf-8", no_network=True, huge_tree=False, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(_decode(data).encode("utf-8", "replace"), parser)
    except etree.LxmlError as exc:
        raise Unparsable("invalid_file", "This file is not HTML that can be read.") from exc
    _refuse_cut(parser)
    if root is None:
        return Source(None, iter(()))
    return Source(root.findtext(".//title"), _pieces(root))


def _decode(data: bytes) -> str:
    """Decode by the charset that the page declares, where it is true; else as plain text."""
    declared = _CHARSET.search(data[:4096])
    if declared is None or data.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        return plain.decode(data)
    encoding = declared[1].decode("ascii", "replace").lower()
    # GB18030 is the superset of what pages call gb2312 or gbk, and browsers read them so.
    encoding = "gb18030" if encoding in ("gb2312", "gbk") else encoding
    if encoding.startswith(("utf-16", "utf-32")):
        return plain.decode(data)  # the declaration itself could not have been read
    try:
        return plain.checked(data.decode(encoding))
    except (LookupError, ValueError):
        return plain.decode(data)


def _refuse_cut(parser: etree.HTMLParser) -> None:
    """At its limits libxml2 stops reading and says so in a log only: half a page must not pass for the whole."""
    for entry in parser.error_log:
        if entry.type_name == "ERR_RESOURCE_LIMIT":
            limit = entry.message.partition(",")[0]
            raise Unparsable("invalid_file", f"This HTML is beyond the limits of its parser: {limit}.")


def _pieces(root: etree._Element) -> Iterator[str]:
    """Yield the visible text in order. White space folds as in a browser, but for <pre>."""
    writer = _Writer()
    walk = etree.iterwalk(root, events=("start", "end"))
    for event, element in walk:
        tag = element.tag
        if not isinstance(tag, str) or tag in _DROPPED:
            if event == "start":
                walk.skip_subtree()
            else:
                yield from writer.text(element.tail)
            continue
        if event == "start":
            writer.open(tag)
            yield from writer.text(element.text)
        else:
            writer.close(tag)
            yield from writer.text(element.tail)


class _Writer:
    """Holds back white space until text follows it, so that there is none at the ends and never too much between."""

    def __init__(self) -> None:
        self._gap = ""
        self._verbatim = 0
        self._started = False

    def open(self, tag: str) -> None:
        self._verbatim += tag == "pre"
        if tag in _CELLS:
            self._widen(" | ")
        else:
            self._break(tag)

    def close(self, tag: str) -> None:
        self._verbatim -= tag == "pre"
        if tag not in _CELLS:
            self._break(tag)

    def text(self, text: str | None) -> Iterator[str]:
        if not text:
            return
        if not self._verbatim:
            text = _SPACE.sub(" ", text)
            if text[0] == " ":
                self._widen(" ")
            trailing = text[-1] == " "
            text = text.strip(" ")
        else:
            trailing = False
        if text:
            yield (self._gap if self._started else "") + text
            self._started, self._gap = True, ""
        if trailing:
            self._widen(" ")

    def _break(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self._widen("\n\n")
        elif tag in _LINES:
            self._widen("\n")

    def _widen(self, gap: str) -> None:
        """Keep the wider of two gaps: a blank line, a line end, a cell's border, a space."""
        self._gap = max(self._gap, gap, key=_GAPS.index)


_GAPS = ("", " ", " | ", "\n", "\n\n")
