"""Texts that share a key have one class, whatever their numbers are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocols.postgres.sql import classify, is_shared, kin
from agent.protocols.postgres.sql.kin import DIGITS_MAX, NUMBERS_MAX, TEXT_CHARACTERS_MAX
from tests.protocols.postgres.corpus.reading import benign, nasty

CORPUS = [text for _, text in (*nasty(), *benign())]
NUMBERS = st.one_of(
    st.sampled_from(["0", "1", "2", "3", "16", "-0", "-2", "016", "0x10", "1_6", "1.5", "16e0"]),
    st.integers(0, 10**10).map(str),
)
SHAPES = (
    "DELETE FROM t WHERE {} = {}",
    "DELETE FROM t WHERE a + {} = a + {} OR b IN ({}, {})",
    "UPDATE t SET a = {} WHERE b BETWEEN b + {} AND b + {}",
    "UPDATE t SET a = {} WHERE NOT (a <> a + {} - {})",
    "DELETE FROM t WHERE a = {} OR NOT a = {}",
    "SELECT a, lo_unlink({}) FROM t ORDER BY {} LIMIT {}",
    "INSERT INTO t VALUES ({}, {}), ({}, {})",
    "SELECT set_config({}, {}, false), a[{}:{}]",
    "SELECT CAST(a AS numeric({},{})) FROM t{} WHERE a={}",
    "SELECT {}; DELETE FROM t WHERE {} = {} AND {} < {}",
)


def renumbered(text: str) -> str:
    """Return a text with the same key and other numbers."""
    key = kin(text)
    assert key is not None
    parts = key.split("\0")
    for at in range(1, len(parts), 2):
        parts[at] = str(7_654_321 + 11 * int(parts[at]))
    return "".join(parts)


def test_the_corpus_keeps_its_classes_with_other_numbers() -> None:
    """Each text of the corpus that has a key is classified alike with other numbers in it."""
    keyed = [text for text in CORPUS if kin(text) is not None]
    assert len(keyed) > 10
    for text in keyed:
        classified = classify(text)
        if is_shared(classified):
            assert classify(renumbered(text)) == classified, text


@given(st.sampled_from(SHAPES), st.lists(NUMBERS, min_size=6, max_size=6))
def test_generated_texts_keep_their_classes(shape: str, numbers: list[str]) -> None:
    """So do texts made to compare numbers with each other, however these are written."""
    text = shape.format(*numbers)
    if kin(text) is None:
        return
    classified = classify(text)
    if is_shared(classified):
        assert classify(renumbered(text)) == classified


def test_values_do_not_matter_and_equality_does() -> None:
    """One key for one statement with any value; another when other numbers are equal."""
    assert kin("SELECT a FROM t WHERE b = 17;") == kin("SELECT a FROM t WHERE b = 123456789;")
    assert kin("DELETE FROM t WHERE 5 = 5") == kin("DELETE FROM t WHERE 6 = 6")
    assert kin("DELETE FROM t WHERE 5 = 5") != kin("DELETE FROM t WHERE 5 = 6")
    assert kin("SELECT a FROM t2 WHERE b = 17") != kin("SELECT a FROM t3 WHERE b = 17")
    assert kin("SELECT a LIMIT 2") != kin("SELECT a LIMIT 1")


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a",
        "SELECT 0, 1",
        "SELECT 'x', 5",
        'SELECT "x", 5',
        "SELECT $1, 5",
        "SELECT $$x$$, 5",
        "SELECT 5 -- 6",
        "SELECT 5 /* 6 */",
        "SELECT \\5",
        "SELECT `5`",
        "SELECT é, 5",
        "SELECT 5\0",
        "SELECT 5, 0x10",
        "SELECT 5, 016",
        "SELECT 5, 1_6",
        "SELECT 5, 1.6",
        "SELECT 5, .6",
        "SELECT 5, 1e6",
        "SELECT 5, 6a",
        f"SELECT 5, 1{'0' * DIGITS_MAX}",
        f"SELECT 5{' ' * (TEXT_CHARACTERS_MAX - 7)}",
        f"SELECT 5{', 5' * NUMBERS_MAX}",
    ],
)
def test_texts_without_a_key(text: str) -> None:
    """What could be read in another way, or is over a bound, is like no other text."""
    assert kin(text) is None


@pytest.mark.parametrize(
    "text",
    [
        f"SELECT 5, 1{'0' * (DIGITS_MAX - 1)}",
        f"SELECT 5{' ' * (TEXT_CHARACTERS_MAX - 8)}",
        f"SELECT 5{', 5' * (NUMBERS_MAX - 1)}",
    ],
)
def test_texts_at_a_bound_have_one(text: str) -> None:
    """At each bound there is a key."""
    assert kin(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "SET statement_timeout = 5000",
        "SELECT set_config(a, 5, false) FROM t",
        "DECLARE c CURSOR FOR SELECT 5",
        "SELECT unheard_of(",
        "SELECT a, count(*) FROM t GROUP BY 2",
        "ALTER SYSTEM SET a = 5",
        "PREPARE p AS SELECT 5",
        "EXECUTE p(5)",
    ],
)
def test_classes_that_are_not_shared(text: str) -> None:
    """Settings, names, what is unknown, and numbers that records show are the text's own."""
    assert not is_shared(classify(text))
