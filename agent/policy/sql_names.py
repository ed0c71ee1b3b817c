"""Patterns for the names of tables, columns and functions: `name`, or `schema.name`.

A part in double quotes is meant as it is ("" is one quote in it). Without quotes it is lower
case, as PostgreSQL folds names, and `*` stands for any characters, none included.
"""

import re
from dataclasses import dataclass

NAME_PATTERN_CHARACTERS_MAX = 256
NAME_BYTES_MAX = 63  # PostgreSQL cuts longer names off (NAMEDATALEN - 1): a rule would mean none
_PART = re.compile(r'"(?:[^"]|"")+"|[^".]+')
_BARE = re.compile(r"[\w$*-]+")
_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a pattern; everything says that it fits any name."""

    regex: re.Pattern[str]
    everything: bool = False

    def fits(self, name: str) -> bool:
        """Whether the name is meant."""
        return self.regex.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class NamePattern:
    """qualifier None: the pattern has none, and says nothing of it."""

    qualifier: Part | None
    name: Part


def check_name_pattern(pattern: str, parts_max: int = 2) -> str | None:
    """Return what is wrong with a pattern, None when it can be compiled."""
    if len(pattern) > NAME_PATTERN_CHARACTERS_MAX:
        return f"a name pattern has at most {NAME_PATTERN_CHARACTERS_MAX} characters"
    parts = _split(pattern)
    if parts is None:
        return "write NAME or SCHEMA.NAME; parts with dots or quotes stand in double quotes"
    if len(parts) > parts_max:
        return "one part only" if parts_max == 1 else "at most two parts: SCHEMA.NAME"
    for part in parts:
        if len(_literal(part).encode()) > NAME_BYTES_MAX and ("*" not in part or part[0] == '"'):
            return (
                f"a name has at most {NAME_BYTES_MAX} bytes in PostgreSQL, which cuts the rest off"
            )
        if part.startswith('"'):
            continue
        if part != part.lower():
            return (
                f"unquoted names are lower case in PostgreSQL: write {part.lower()!r}, "
                f"or '\"{part}\"' (in quotes) for a name that has capitals"
            )
        if not _BARE.fullmatch(part):
            return f"write '\"{part}\"' (in double quotes) for a name with such characters"
    return None


def compile_name(pattern: str) -> NamePattern:
    """Return a checked pattern, compiled.

    Raises:
        ValueError: check_name_pattern has an objection.
    """
    objection = check_name_pattern(pattern)
    parts = _split(pattern)
    if objection is not None or parts is None:
        raise ValueError(objection)
    *qualifier, name = map(_compile, parts)
    return NamePattern(qualifier[0] if qualifier else None, name)


def split_name(written: str) -> tuple[str, str] | None:
    """Return (schema or "", name) of a name without `*`, None when it is not one."""
    parts = _split(written)
    if parts is None or check_name_pattern(written) is not None:
        return None
    if any("*" in part for part in parts if not part.startswith('"')):
        return None
    *schema, name = map(_literal, parts)
    return (schema[0] if schema else "", name)


def write_name(*parts: str) -> str:
    """Return the pattern that means exactly these parts; empty ones are left out."""
    return ".".join(_written(part) for part in parts if part)


def _written(part: str) -> str:
    if _PLAIN.fullmatch(part) or part == "*":
        return part
    return '"' + part.replace('"', '""') + '"'


def _split(pattern: str) -> list[str] | None:
    parts: list[str] = []
    at = 0
    while True:
        match = _PART.match(pattern, at)
        if match is None:
            return None
        parts.append(match[0])
        at = match.end()
        if at == len(pattern):
            return parts
        if pattern[at] != ".":
            return None
        at += 1


def _literal(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def _compile(part: str) -> Part:
    """Return the expression of a part; each `*` but the last takes the first that fits."""
    if part.startswith('"'):
        return Part(re.compile(re.escape(_literal(part))))
    first, *rest = (re.escape(piece) for piece in part.split("*"))
    if not rest:
        return Part(re.compile(first))
    *middle, last = rest
    inner = "".join(f"(?>.*?{piece})" for piece in middle if piece)
    return Part(re.compile(f"{first}{inner}.*{last}", re.DOTALL), not part.strip("*"))
