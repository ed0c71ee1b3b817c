"""Texts that differ in whole numbers only have one class.

Programs that write their values into the text (simple queries) are then classified once for each
statement, not once for each value. What the classifier reads of a whole number is whether it equals
another one (`WHERE 1 = 1`), and for a few functions its value, which is then among the statement's
settings. So a key keeps which numbers are equal, 0 and 1 stay as they are, and a class with
settings, names of prepared statements or anything unknown is shared with nobody. A text has no key
when it has quotes, comments, parameters, letters beyond ASCII, or a number that is written in any
other way than with one to nine digits: in all others, digits behind what is no letter, digit or
underscore are such a number in any reading (PostgreSQL 18, chapter 4.1).
"""

import re

from agent.model.sql import Classified, Effect, Statement

TEXT_CHARACTERS_MAX = 4_096  # a longer text has no key
NUMBERS_MAX = 64  # one with more has none either
DIGITS_MAX = 9  # of a number: all of them are of one type then
_NUMBER = re.compile(r"(?<!\w)([0-9][\w.]*)", re.ASCII)
_OPAQUE = re.compile(r"['\"$\\`\x00-\x08\x0e-\x1f\x7f]|--|/\*|\.[0-9]")
_SHOWN = re.compile(r"(?<![\w$])(?:[2-9]|[0-9]{2})", re.ASCII)
_KINDS = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
_ALONE = frozenset({"0", "1"})  # they stay: a minus before 0 changes nothing


def kin(text: str) -> str | None:
    """Return a key that all texts share which differ in numbers only; None: it has none.

    A key has a NUL in it, which no text has.
    """
    if len(text) > TEXT_CHARACTERS_MAX or not text.isascii() or _OPAQUE.search(text):
        return None
    parts = _NUMBER.split(text)
    if not 3 <= len(parts) <= 2 * NUMBERS_MAX + 1:
        return None
    order: dict[str, str] = {}
    for at in range(1, len(parts), 2):
        number = parts[at]
        if number in _ALONE:
            continue
        if number[0] == "0" or len(number) > DIGITS_MAX or not number.isdigit():
            return None
        parts[at] = order.setdefault(number, f"\0{len(order)}\0")
    return "".join(parts) if order else None


def is_shared(classified: Classified) -> bool:
    """Whether all texts with the same key have this class."""
    return _SHOWN.search(classified.normalized) is None and all(
        map(_is_plain, classified.statements)
    )


def _is_plain(statement: Statement) -> bool:
    return (
        statement.kind in _KINDS
        and not statement.settings
        and not statement.prepared
        and not statement.why
        and Effect.UNKNOWN not in statement.effects
    )
