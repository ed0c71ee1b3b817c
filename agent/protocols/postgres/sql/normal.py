"""Text with placeholders instead of its literals, for records that keep no data.

libpg_query does it for queries; in other statements it knows but some of the literals, and it
keeps comments, so that those are done here.
"""

import re
from collections.abc import Sequence

from agent.protocols.postgres.sql import library
from agent.protocols.postgres.sql.lexis import tokens
from agent.protocols.postgres.sql.words import words

_QUERIES = words("SelectStmt InsertStmt UpdateStmt DeleteStmt MergeStmt")
_LITERALS = frozenset({"string", "number"})
_PARAMETER = re.compile(r"\$(\d{1,9})")


def normalized(text: str, sql: bytes, kinds: Sequence[str]) -> str:
    """Return text that has been parsed, with `$n` for its literals."""
    if _QUERIES.issuperset(kinds) and "--" not in text and "/*" not in text:
        try:
            return library.normalize(sql)
        except library.Refused:  # it has parsed, so this is no verdict on the text
            pass
    return _replaced(text)


def _replaced(text: str) -> str:
    found: list[str] = []
    number = max((int(match[1]) for match in _PARAMETER.finditer(text)), default=0)
    place = 0
    for kind, start, end in tokens(text):
        if kind in _LITERALS:
            number += 1
            found += [text[place:start], f"${number}"]
            place = end
        elif kind == "comment":
            found += [text[place:start], " "]
            place = end
    found.append(text[place:])
    return "".join(found).strip()
