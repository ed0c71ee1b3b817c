"""What a classifier says of SQL text: facts, not decisions.

The effects of functions are kept apart from those of the syntax, so that a policy can say what a
function is (`functions:` of a target) without classifying the text again.
"""

from dataclasses import dataclass
from enum import StrEnum


class Effect(StrEnum):
    """What a statement may do. UNKNOWN is the most dangerous: nobody can say."""

    READ = "read"
    WRITE = "write"  # rows change, or are locked
    DDL = "ddl"  # objects are made, altered or removed; TRUNCATE too
    PRIVILEGE = "privilege"  # roles, grants, ownership, policies
    SESSION = "session"  # transaction control and harmless settings of this session alone
    ADMIN = "admin"  # the server, its files, its programs, other sessions
    UNKNOWN = "unknown"  # not parsed, or not knowable from the text


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, view or sequence as the text names it; schema "" when it names none."""

    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the text names it; table "" when not told, name "*" for all of them."""

    table: str
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function that the text calls, and what the built-in list says of it."""

    schema: str
    name: str
    effect: Effect  # UNKNOWN when the list does not know it
    # the server's major version since which the name is a word of the grammar, and no function
    since: int = 0


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. Every list is complete for the text, views and triggers not followed."""

    kind: str  # the command in capitals: "SELECT", "DROP TABLE"; "" when not parsed
    effects: frozenset[Effect]  # of the syntax, calls apart; never empty
    reads: tuple[Relation, ...] = ()
    writes: tuple[Relation, ...] = ()
    columns_read: tuple[Column, ...] = ()
    columns_written: tuple[Column, ...] = ()
    calls: tuple[Call, ...] = ()
    unbounded: bool = False  # an UPDATE, DELETE or MERGE without a condition that could be false
    returns_rows: bool = False
    why: str = ""  # for UNKNOWN: what could not be known; safe to show
    prepared: str = ""  # the SQL-level prepared statement that is made, run or dropped
    # (name, value) of each setting that it changes; value None: back to what it began with.
    # ("*", None) for all of them; "?" where only the server can know the name or value.
    settings: tuple[tuple[str, str | None], ...] = ()
    makes: tuple[Relation, ...] = ()  # functions that it makes, renames or moves, by their names


@dataclass(frozen=True, slots=True)
class Classified:
    """All statements of one text, in order. normalized has placeholders instead of literals."""

    statements: tuple[Statement, ...]
    normalized: str
    since: int = 0  # the largest of its calls
    busy: bool = False  # nobody looked at it, for too many waited: to be refused, and tried again


def unknown(why: str) -> Classified:
    """Return the most dangerous class, with the reason why nothing better is known."""
    return Classified((Statement("", frozenset({Effect.UNKNOWN}), why=why),), "")
