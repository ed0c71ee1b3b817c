"""A name changes when the server says so."""

import pytest

from agent.protocols.postgres.names import Names, NotYet


def test_a_pending_name_is_sure_in_its_segment_alone() -> None:
    """What asks for it in the same segment gets it; a later segment waits for the answer."""
    names: Names[str] = Names()
    change = names.change(b"a", "new", 1)
    assert names.find(b"a", 1) == "new"
    with pytest.raises(NotYet):
        names.find(b"a", 2)
    change.settle()
    assert names.find(b"a", 2) == "new"


def test_a_change_that_failed_leaves_the_name_as_it_was() -> None:
    """Unless it is the unnamed, which servers remove before they make it anew."""
    names: Names[str] = Names()
    for name in (b"a", b""):
        names.set(name, "old")
        names.change(name, "new", 1).drop(tried=True)
    assert names.find(b"a", 2) == "old"
    assert names.find(b"", 2) is None
    names.set(b"", "old")
    names.change(b"", "new", 1).drop(tried=False)
    assert names.find(b"", 2) == "old"


def test_the_last_of_several_changes_counts() -> None:
    """Made, removed and made again in one segment; what is dropped in between does not matter."""
    names: Names[str] = Names()
    first = names.change(b"a", "1", 1)
    second = names.change(b"a", None, 1)
    third = names.change(b"a", "3", 1)
    assert names.find(b"a", 1) == "3"
    first.settle()
    third.drop(tried=False)
    assert names.find(b"a", 1) is None
    second.settle()
    assert names.find(b"a", 5) is None
    assert len(names) == 0


def test_what_any_name_may_stand_for() -> None:
    """Settled and pending, the unnamed left out."""
    names: Names[str] = Names()
    names.set(b"", "unnamed")
    names.set(b"a", "settled")
    names.change(b"b", "pending", 1)
    names.change(b"a", None, 1)
    assert sorted(names.named()) == ["pending", "settled"]
    names.clear()
    assert names.named() == ["pending"]
