"""HTML: what a reader sees, in lines that a reader would see."""

from __future__ import annotations

import pytest

from ragagent.engine.indexing.parsing.parse import parse
from ragagent.engine.indexing.parsing.parsed import Parsed, Unparsable

PAGE = """<!DOCTYPE html><html><head><title> Opening
hours </title><style>p {color: red}</style></head><body>
<nav>Home | About</nav><h1>Library</h1><p>Open <b>every</b>
day.<br>Closed on <i>Monday</i>.</p><script>alert("no")</script>
<ul><li>One</li><li>Two</li></ul><noscript>enable it</noscript><template>later</template>
<table><tr><th>Day</th><th>Hours</th></tr><tr><td>Tue</td><td>9&ndash;5</td></tr></table>
<pre>  keep
   this</pre><!-- not this --></body></html>"""


def _parse(html: str | bytes) -> Parsed:
    return parse("a.html", html.encode() if isinstance(html, str) else html, max_chars=1_000_000)


def test_blocks_are_lines_and_only_visible_text_is_left() -> None:
    assert _parse(PAGE) == Parsed(
        "Library\n\nOpen every day.\nClosed on Monday.\n\nOne\nTwo\n\nDay | Hours\nTue | 9–5\n\n  keep\n   this",
        "Opening hours",
    )


@pytest.mark.parametrize("declared", ["gb2312", "gbk", "gb18030"])
def test_a_declared_charset_is_believed(declared: str) -> None:
    page = f'<meta charset="{declared}"><p>杭州西湖</p>'
    assert _parse(page.encode("gb18030")).text == "杭州西湖"


@pytest.mark.parametrize("declared", ["latin-9000", "rot13", "utf-7", "utf-16", "ascii"])
def test_a_false_charset_is_not(declared: str) -> None:
    assert _parse(f'<meta charset="{declared}"><p>杭州西湖</p>').text == "杭州西湖"


def test_entities_of_a_document_type_are_not_expanded() -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE html [<!ENTITY l0 "lol">{laughs}<!ENTITY f SYSTEM "file:///etc/passwd">]><p>&l9; &f; end</p>'
    text = _parse(bomb).text
    assert "lollol" not in text
    assert "root:" not in text
    assert text.endswith("end")


@pytest.mark.parametrize("page", ["<div>" * 5000 + "deep", f"<p>{'long ' * 3_000_000}</p>"], ids=["deep", "long"])
def test_beyond_the_parsers_limits_a_page_is_refused_rather_than_cut(page: str) -> None:
    with pytest.raises(Unparsable, match="beyond the limits of its parser"):
        parse("a.html", page.encode(), max_chars=20_000_000)


def test_a_page_without_text_is_refused() -> None:
    with pytest.raises(Unparsable, match="no text"):
        _parse("<html><head><title>x</title></head><body><script>1</script></body></html>")
