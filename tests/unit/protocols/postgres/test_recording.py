"""What is recorded is bounded, and identifies what was forwarded."""

import hashlib
from dataclasses import replace

import pytest

from agent.model.ids import OperationId, RuleId
from agent.model.reason import Reason
from agent.model.sql import Call, Classified, Effect, Statement
from agent.model.verdict import Allow, Deny, Literals
from agent.protocols.postgres.recording import (
    TEXT_BYTES_MAX,
    VALUE_CHARS_MAX,
    VALUES_MAX,
    VERB_KINDS_MAX,
    as_recorded,
    bound_values,
    bounded_text,
    bounded_value,
    operation_of,
    prepare,
    verb_of,
)
from agent.protocols.postgres.requests import Bind

READ = frozenset({Effect.READ})


@pytest.mark.parametrize("letter", ["x", "é", "𝄞"])
def test_a_text_is_whole_up_to_its_bound(letter: str) -> None:
    """One byte past the bound it is head, hash and tail, and still within the bound."""
    size = len(letter.encode())
    whole = letter * (TEXT_BYTES_MAX // size)
    assert bounded_text(whole) == whole
    long = whole + letter
    shown = bounded_text(long)
    assert hashlib.sha256(long.encode()).hexdigest() in shown
    assert len(shown.encode()) <= TEXT_BYTES_MAX
    assert shown.startswith(letter)
    assert shown.endswith(letter)


def test_a_value_is_whole_up_to_its_bound() -> None:
    """Text counts its characters, binary the characters of its hexadecimal form."""
    whole = b"x" * VALUE_CHARS_MAX
    assert bounded_value(whole, binary=False) == whole.decode()
    for long, binary in ((whole + b"x", False), (b"\0" * 128, True), (b"\xff" * 200, False)):
        shown = bounded_value(long, binary=binary)
        assert hashlib.sha256(long).hexdigest() in shown
        assert f"{len(long)} bytes" in shown
        assert len(shown) <= 400
    assert bounded_value(b"\1\2", binary=True) == "\\x0102"
    assert bounded_value(b"\xff", binary=False) == "\\xff"


def test_values_are_named_by_place() -> None:
    """A NULL is told from every text, and formats apply to one or to all."""
    bind = Bind(b"", b"", (1,), (b"\1", None))
    assert bound_values(bind) == (("$1", "\\x01"), ("$2 is null", ""))
    bind = Bind(b"", b"", (0, 1), (b"NULL", b"\2", b"c"))
    assert bound_values(bind) == (("$1", "NULL"), ("$2", "\\x02"), ("$3", "c"))
    assert bound_values(Bind(b"", b"", (), (b"a",))) == (("$1", "a"),)


def test_as_many_values_as_the_bound_are_shown() -> None:
    """The others are counted, and hashed together."""
    values = tuple(b"%d" % number for number in range(VALUES_MAX))
    assert len(bound_values(Bind(b"", b"", (), values))) == VALUES_MAX
    shown = bound_values(Bind(b"", b"", (), (*values, b"x", None)))
    assert len(shown) == VALUES_MAX + 1
    assert shown[-1][0] == f"${VALUES_MAX + 1} and on"
    assert shown[-1][1].startswith("2 values, sha256:")


def test_a_verb_names_the_commands() -> None:
    """Up to its bound, then it says that there are more; unknown is "" alone, "?" among others."""
    select, nobody = Statement("SELECT", READ), Statement("", frozenset({Effect.UNKNOWN}))
    assert verb_of((select,)) == "SELECT"
    assert verb_of((select, nobody)) == "SELECT; ?"
    assert verb_of((nobody,)) == ""
    assert verb_of((select,) * VERB_KINDS_MAX).count("SELECT") == VERB_KINDS_MAX
    assert verb_of((select,) * (VERB_KINDS_MAX + 1)).endswith("; …")


def test_the_record_has_what_was_decided_on() -> None:
    """Statements of the verdict stand in place of those that were asked about."""
    asked = Statement("SELECT", frozenset({Effect.READ}), calls=(Call("", "f", Effect.UNKNOWN),))
    decided = replace(asked, calls=(Call("", "f", Effect.READ),))
    classified = Classified((asked,), "SELECT f($1)")
    prepared = prepare("SELECT f('x')", classified, (asked,))
    operation = operation_of(OperationId("o"), prepared, (("$1", "x"),))
    for literals in Literals:
        for verdict in (
            Allow(RuleId("l/0"), 0, literals, statements=(decided,)),
            Deny(RuleId("l/0"), Reason.POLICY_DENIED, "No.", "Ask.", literals, (decided,)),
        ):
            assert as_recorded(operation, verdict, prepared).statements == (decided,)
    assert as_recorded(operation, Allow(RuleId("l/0")), prepared) is operation
