"""What a run's database role is granted: a small part of GRANT's grammar, read strictly.

`SELECT, INSERT ON TABLE shop.orders`, `SELECT (id, state) ON orders`, `SELECT ON ALL TABLES IN
SCHEMA public`, `USAGE ON SCHEMA shop`, `USAGE ON SEQUENCE orders_id_seq`, `CONNECT ON DATABASE
orders`, `EXECUTE ON FUNCTION order_total(integer)`. Source: PostgreSQL manual, GRANT. No ALL
PRIVILEGES (what it gives grows with the server's version), no grant option, no large objects, no
settings. A name without a schema is in `public`, whatever anybody's search_path is, and a type
without one in `pg_catalog`. What is written to the server is built from what was read here, never
the text itself.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

GRANTS_MAX = 64
GRANT_CHARACTERS_MAX = 1_024
NAMES_MAX = 64  # of one list
IDENTIFIER_BYTES_MAX = 63  # NAMEDATALEN - 1
Item = TypeVar("Item")

_TABLE = frozenset(
    {"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"}
)
_SEQUENCE = frozenset({"USAGE", "SELECT", "UPDATE"})
_EXECUTE = frozenset({"EXECUTE"})
ALLOWED = {
    "TABLE": _TABLE,
    "SEQUENCE": _SEQUENCE,
    "SCHEMA": frozenset({"USAGE", "CREATE"}),
    "DATABASE": frozenset({"CONNECT", "TEMPORARY", "CREATE"}),
    "FUNCTION": _EXECUTE,
    "PROCEDURE": _EXECUTE,
    "ROUTINE": _EXECUTE,
    "ALL TABLES": _TABLE,
    "ALL SEQUENCES": _SEQUENCE,
    "ALL FUNCTIONS": _EXECUTE,
    "ALL PROCEDURES": _EXECUTE,
    "ALL ROUTINES": _EXECUTE,
}
_COLUMN = frozenset({"SELECT", "INSERT", "UPDATE", "REFERENCES"})
_CALLABLE = frozenset({"FUNCTION", "PROCEDURE", "ROUTINE"})
_TOKEN = re.compile(r'\s*(?:("(?:[^"]|"")+")|([A-Za-z_][A-Za-z0-9_$]*)|([0-9]+|\[\]|[(),.]))')
_TYPE = re.compile(r"[A-Za-z0-9_$ .,()\[\]]*")


class GrantError(ValueError):
    """It can't be read; the message says what to write."""


@dataclass(frozen=True, slots=True)
class Privilege:
    """One word, and the columns that it is for (none: all)."""

    word: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Named:
    """An object: its name's parts, and a function's argument types (checked characters alone)."""

    parts: tuple[str, ...]
    types: str = ""


@dataclass(frozen=True, slots=True)
class RoleGrant:
    """Privileges on objects of one kind; of kind `ALL …` the objects are schemas."""

    privileges: tuple[Privilege, ...]
    kind: str
    objects: tuple[Named, ...]


def parse_grant(text: str) -> RoleGrant:
    """Read one grant.

    Raises:
        GrantError: it is not of the grammar above, or past a bound of this module.
    """
    if len(text) > GRANT_CHARACTERS_MAX:
        raise GrantError(f"a grant has at most {GRANT_CHARACTERS_MAX} characters")
    tokens = _Tokens(text)
    privileges = _list(tokens, _privilege)
    tokens.expect("ON")
    kind = _kind(tokens)
    if kind.startswith("ALL "):
        tokens.expect("IN")
        tokens.expect("SCHEMA")
    parts_max = 1 if kind.startswith("ALL ") or kind in {"SCHEMA", "DATABASE"} else 2
    objects = _list(tokens, lambda each: _named(each, kind, parts_max))
    if tokens.peek() is not None:
        raise GrantError(f"unexpected {tokens.peek()!r} after the objects")
    _check(privileges, kind)
    return RoleGrant(privileges, kind, objects)


def serialize_grant(grant: RoleGrant, role: str) -> str:
    """Return the statement that grants it to a role."""
    privileges = ", ".join(
        each.word + (f" ({', '.join(map(quoted, each.columns))})" if each.columns else "")
        for each in grant.privileges
    )
    kind = grant.kind + (" IN SCHEMA" if grant.kind.startswith("ALL ") else "")
    objects = ", ".join(
        ".".join(map(quoted, each.parts)) + (each.types if grant.kind in _CALLABLE else "")
        for each in grant.objects
    )
    return f"GRANT {privileges} ON {kind} {objects} TO {quoted(role)}"


def quoted(identifier: str) -> str:
    """Return an identifier as SQL text."""
    return '"' + identifier.replace('"', '""') + '"'


def parse_identifier(text: str) -> str:
    """Return a role's or schema's name: `name` (folded to lower case) or `"Name"`.

    Raises:
        GrantError: it is not one identifier.
    """
    tokens = _Tokens(text)
    name = _identifier(tokens)
    if tokens.peek() is not None:
        raise GrantError(f"not one name: {text[:80]!r}; put it in double quotes")
    return name


class _Tokens:
    """The text's tokens; a quoted identifier keeps its quotes."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = []
        at, text = 0, text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise GrantError(f"unexpected {text[at : at + 20].strip()!r} in a grant")
            self._tokens.append(match[match.lastindex or 0])
            at = match.end()
        self._next = 0

    def peek(self) -> str | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def take(self) -> str:
        token = self.peek()
        if token is None:
            raise GrantError("the grant ends too early: write PRIVILEGES ON OBJECTS")
        self._next += 1
        return token

    def word(self) -> str:
        """Return the next token in capitals, "" when there is none or it is quoted."""
        token = self.peek() or ""
        return "" if token.startswith('"') else token.upper()

    def expect(self, word: str) -> None:
        if self.word() != word:
            raise GrantError(f"{word} is wanted, not {(self.peek() or 'the end')[:40]!r}")
        self.take()

    def skip(self, word: str) -> bool:
        if self.word() != word:
            return False
        self.take()
        return True


def _list(tokens: _Tokens, read: Callable[[_Tokens], Item]) -> tuple[Item, ...]:
    found = [read(tokens)]
    while tokens.skip(","):
        found.append(read(tokens))
        if len(found) > NAMES_MAX:
            raise GrantError(f"more than {NAMES_MAX} names in one list")
    return tuple(found)


def _privilege(tokens: _Tokens) -> Privilege:
    word = tokens.word()
    word = "TEMPORARY" if word == "TEMP" else word
    if word == "ALL":
        raise GrantError("write the privileges, not ALL")
    if not any(word in words for words in ALLOWED.values()):
        raise GrantError(f"unknown privilege {(tokens.peek() or '')[:40]!r}")
    tokens.take()
    if not tokens.skip("("):
        return Privilege(word)
    columns = _list(tokens, _identifier)
    tokens.expect(")")
    return Privilege(word, columns)


def _kind(tokens: _Tokens) -> str:
    if tokens.skip("ALL"):
        kind = f"ALL {tokens.take().upper()}"
        if kind not in ALLOWED:
            raise GrantError(f"unknown kind {kind[:40]!r}: ALL TABLES, SEQUENCES, FUNCTIONS, …")
        return kind
    word = tokens.word()
    if word in ALLOWED:
        tokens.take()
        return word
    return "TABLE"


def _named(tokens: _Tokens, kind: str, parts_max: int) -> Named:
    parts = [_identifier(tokens)]
    while tokens.skip("."):
        parts.append(_identifier(tokens))
    if len(parts) > parts_max:
        raise GrantError(f"a name of {kind} has at most {parts_max} parts")
    if parts_max > 1 and len(parts) == 1:
        parts.insert(0, "public")
    return Named(tuple(parts), _types(tokens) if kind in _CALLABLE else "")


def _types(tokens: _Tokens) -> str:
    """Return `(integer, double precision)`: words of types alone, none of them quoted."""
    tokens.expect("(")
    words, depth = ["("], 1
    while depth:
        token = tokens.take()
        depth += {"(": 1, ")": -1}.get(token, 0)
        words.append(token)
    types = " ".join(words)
    if not _TYPE.fullmatch(types) or depth > 1:
        raise GrantError("argument types are unquoted words, as in order_total(integer)")
    return types


def _identifier(tokens: _Tokens) -> str:
    token = tokens.take()
    if token.startswith('"'):
        name = token[1:-1].replace('""', '"')
    elif token[0].isalpha() or token[0] == "_":
        name = token.lower()
    else:
        raise GrantError(f"a name is wanted, not {token[:40]!r}")
    if len(name.encode()) > IDENTIFIER_BYTES_MAX or not name.isprintable():
        raise GrantError(f"a name has at most {IDENTIFIER_BYTES_MAX} bytes, all printable")
    return name


def _check(privileges: tuple[Privilege, ...], kind: str) -> None:
    for privilege in privileges:
        if privilege.word not in ALLOWED[kind]:
            words = ", ".join(sorted(ALLOWED[kind]))
            raise GrantError(f"{privilege.word} is no privilege on {kind}: {words}")
        if privilege.columns and (kind != "TABLE" or privilege.word not in _COLUMN):
            raise GrantError(f"{privilege.word} on {kind} has no columns")
