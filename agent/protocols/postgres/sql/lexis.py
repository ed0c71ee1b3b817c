"""The lexical structure of SQL text, as far as literals, names and comments go.

PostgreSQL 18, chapter 4.1, with standard_conforming_strings on. It decides nothing: it is for
bounds and for what is shown of a text that the parser has read or will read.
"""

import re
from collections.abc import Iterator

# No part of these can match in two ways (possessive), and what has no end ends with the text:
# the time is linear in the text's length.
_STRING = r"'(?:[^']++|'')*+(?:'|\Z)"
_ESCAPED = r"'(?:[^'\\]++|\\.|'')*+(?:'|\Z)"
# strings on several lines are one
_GAP = r"[^\S\r\n]*+(?:--[^\r\n]*+)?+[\r\n](?:\s++|--[^\r\n]*+)*+"

TOKEN = re.compile(
    rf"""
    (?P<comment>--[^\r\n]*+|/\*)
    |(?P<string>
        [eE]{_ESCAPED}(?:{_GAP}{_ESCAPED})*+
        |(?:[nNbBxX]|[uU]&)?{_STRING}(?:{_GAP}{_STRING})*+
        |\$(?P<tag>(?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*+)?+)\$.*?(?:\$(?P=tag)\$|\Z)
    )
    |(?P<name>(?:[uU]&)?"(?:[^"]++|"")*+(?:"|\Z)|[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*+)
    |(?P<parameter>\$\d++)
    |(?P<number>0[xX][\da-fA-F_]++|0[oO][0-7_]++|0[bB][01_]++
        |(?:\d[\d_]*+(?:\.[\d_]*+)?|\.\d[\d_]*+)(?:[eE][+-]?\d++)?)
    |(?P<open>[(\[])
    |(?P<close>[)\]])
    |(?P<end>[,;])
    |(?P<other>[^\s])
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"/\*|\*/")


def tokens(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield (kind, start, end) of each token; what is no token is passed over."""
    place = 0
    while True:
        match = TOKEN.search(text, place)
        if match is None:
            return
        kind = match.lastgroup or "other"
        kind = "string" if kind == "tag" else kind
        start, place = match.span()
        if kind == "comment" and text.startswith("/*", start):
            place = _comment_end(text, place)
        yield kind, start, place


def _comment_end(text: str, place: int) -> int:
    """Comments nest (chapter 4.1.5)."""
    depth = 1
    while depth:
        match = _COMMENT.search(text, place)
        if match is None:
            return len(text)
        depth += 1 if match[0] == "/*" else -1
        place = match.end()
    return place
