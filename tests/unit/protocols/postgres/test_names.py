"""A name changes when the server says so."""

import pytest

from agent.protocols.postgres.names import (
    FACT_BYTES,
    NAMES_BYTES_MAX,
    NAMES_MAX,
    Names,
    NotYet,
)
from agent.protocols.postgres.recording import prepare
from agent.protocols.postgres.sql import classify


class Text(str):
    """What a name stands for here."""

    __slots__ = ()

    @property
    def weight(self) -> int:
        """As long as it is."""
        return len(self)


def test_a_pending_name_is_sure_in_its_segment_alone() -> None:
    """What asks for it in the same segment gets it; a later segment waits for the answer."""
    names: Names[Text] = Names()
    change = names.change(b"a", Text("new"), 1)
    assert names.find(b"a", 1) == "new"
    with pytest.raises(NotYet):
        names.find(b"a", 2)
    change.settle()
    assert names.find(b"a", 2) == "new"


def test_a_change_that_failed_leaves_the_name_as_it_was() -> None:
    """Unless it is the unnamed, which servers remove before they make it anew."""
    names: Names[Text] = Names()
    for name in (b"a", b""):
        names.set(name, Text("old"))
        names.change(name, Text("new"), 1).drop(tried=True)
    assert names.find(b"a", 2) == "old"
    assert names.find(b"", 2) is None
    names.set(b"", Text("old"))
    names.change(b"", Text("new"), 1).drop(tried=False)
    assert names.find(b"", 2) == "old"


def test_the_last_of_several_changes_counts() -> None:
    """Made, removed and made again in one segment; what is dropped in between does not matter."""
    names: Names[Text] = Names()
    first = names.change(b"a", Text("1"), 1)
    second = names.change(b"a", None, 1)
    third = names.change(b"a", Text("3"), 1)
    assert names.find(b"a", 1) == "3"
    first.settle()
    third.drop(tried=False)
    assert names.find(b"a", 1) is None
    second.settle()
    assert names.find(b"a", 5) is None
    assert len(names) == 0


def test_what_any_name_may_stand_for() -> None:
    """Settled and pending, the unnamed left out."""
    names: Names[Text] = Names()
    names.set(b"", Text("unnamed"))
    names.set(b"a", Text("settled"))
    names.change(b"b", Text("pending"), 1)
    names.change(b"a", None, 1)
    assert sorted(names.named()) == ["pending", "settled"]
    names.clear()
    assert names.named() == ["pending"]


def test_names_are_bounded_in_number() -> None:
    """One below the bound there is room for one more; at it there is none."""
    names: Names[Text] = Names()
    for number in range(NAMES_MAX - 1):
        names.set(b"%d" % number, Text(""))
    assert not names.is_full()
    pending = names.change(b"last", Text(""), 1)
    assert names.is_full()
    pending.drop(tried=True)
    assert not names.is_full()


def test_names_are_bounded_in_bytes() -> None:
    """What is replaced, removed or cleared does not count any more."""
    names: Names[Text] = Names()
    names.set(b"a", Text("x" * (NAMES_BYTES_MAX - 1)))
    assert not names.is_full()
    names.set(b"b", Text("x"))
    assert names.is_full()
    names.set(b"b", Text(""))
    assert not names.is_full()
    names.set(b"b", Text("x"))
    names.clear()
    assert names.weight == 0


def test_a_statement_weighs_what_is_known_of_it() -> None:
    """Its names count, not its text alone: they take more room than they have letters."""
    few, many = (f"SELECT {', '.join(f'c{n}' for n in range(count))} FROM t" for count in (1, 500))
    small, large = (prepare(text, one := classify(text), one.statements) for text in (few, many))
    assert large.weight - small.weight == 2 * (len(many) - len(few)) + 499 * FACT_BYTES
