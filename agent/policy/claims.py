"""Claims of a verified token against those of the policy: exact values, globs and lists.

A text of the policy matches a text, and a whole number with those digits; `true` and `false`
without quotes match that boolean alone. `*` stands for any characters. A claim that is a list
(groups) matches when one of its items does; objects never match. Nothing is folded or
normalized: two texts are the same when their characters are.
"""

from collections.abc import Mapping

from agent.policy.schema import Claim

ANY = "*"
ITEMS_MAX = 1_000  # of a claim that is a list; one that is longer does not match


def missed(wanted: tuple[Claim, ...], claims: Mapping[str, object]) -> str:
    """Return the name of the first claim that does not match, "" when all do."""
    for claim in wanted:
        if claim.name not in claims or not _matches(claim, claims[claim.name]):
            return claim.name
    return ""


def _matches(claim: Claim, found: object) -> bool:
    if isinstance(found, list):
        some = found if len(found) <= ITEMS_MAX else []
        return any(not isinstance(one, list) and _matches(claim, one) for one in some)
    return any(_same(found, value) for value in claim.values)


def _same(found: object, wanted: object) -> bool:
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted is found
    if isinstance(found, int):
        return wanted == str(found)
    return isinstance(found, str) and isinstance(wanted, str) and fits(wanted, found)


def fits(pattern: str, text: str) -> bool:
    """Return whether a text is the pattern, where `*` is any characters; one pass a `*`."""
    first, *rest = pattern.split(ANY)
    if not rest:
        return text == first
    *middle, last = rest
    at, end = len(first), len(text) - len(last)
    if end < at or not text.startswith(first) or not text.endswith(last):
        return False
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
