"""Conditions that hold for every row, as far as the corpus of nasty statements has none of them."""

import pytest

from agent.protocols.postgres.sql import classify


def _unbounded(condition: str) -> bool:
    (statement,) = classify(f"DELETE FROM t WHERE {condition}").statements
    assert statement.kind == "DELETE"
    return statement.unbounded


@pytest.mark.parametrize(
    "condition",
    [
        # a comment behind NOT is none for this parser, so that the corpus's variants do not fit
        "id BETWEEN 2 AND 5 OR id NOT BETWEEN 2 AND 5",
        "id IN (2, 3) OR id NOT IN (2, 3)",
        "a LIKE 'x%' OR a NOT LIKE 'x%'",
        "a IS UNKNOWN OR b OR a IS NOT UNKNOWN",
        "a < 3 OR (b = 1 OR b <> 1)",
        "NOT (a = 1 AND NOT a = 1)",
        "t.a IN (SELECT a FROM t AS other)",
        "a IN (SELECT a FROM public.t ORDER BY b)",
        "a > 1 OR t.a <= 1",
        "t.a IS NULL OR a IS NOT NULL",
        "coalesce(a, b) = coalesce(t.a, t.b)",
        "NOT t.ctid IS NULL",
        "coalesce(a = a, true) AND 'x' = 'x'",
        "a = t.a AND NOT t.a <> a AND t.b IN (2, b) AND b BETWEEN t.b AND b",
    ],
)
def test_what_holds_for_every_row(condition: str) -> None:
    """The usual tautologies, NULL apart."""
    assert _unbounded(condition)


@pytest.mark.parametrize(
    "condition",
    [
        "id BETWEEN 2 AND 5 OR id NOT BETWEEN 2 AND 6",
        "id IN (2, 3) OR id NOT IN (2, 4)",
        "a = 1 OR b <> 1",
        "a = 1 OR a OPERATOR(odd.<>) 1",
        "a = ANY (SELECT a FROM u)",
        "a IN (SELECT b FROM t)",
        "a IN (SELECT a FROM t WHERE a > 1)",
        "a IN (SELECT a FROM t ORDER BY a LIMIT 1)",
        "a IN (SELECT DISTINCT ON (b) a FROM t ORDER BY b)",
        "NOT a IS NULL",
        "a > 1 OR t.b <= 1",
        "a <> ALL (SELECT a FROM t)",
        "a = t.b",
        "a = u.a",
        "a = (t.a).a",
        "a ~ '^x'",
        "CASE a WHEN 1 THEN true ELSE false END",
        "(a = 1) = true",
        "EXISTS (SELECT 1 WHERE id = 1)",
        "EXISTS (SELECT FROM u, t AS x WHERE x.id = u.id AND t.id = 1)",
    ],
)
def test_what_may_be_false_for_some_row(condition: str) -> None:
    """What looks like them and is bounded."""
    assert not _unbounded(condition)


def test_another_tables_names_are_told_from_the_changed_ones() -> None:
    """By alias, join, function, sample and query, each with and without a name of its own."""
    for sources, qualifier in (
        ("u", "u"), ("public.u", "u"), ("u AS x", "x"), ("(u JOIN v USING (id)) AS j", "j"),
        ("u CROSS JOIN v", "v"), ("u JOIN v USING (id) AS k", "k"), ("now()", "now"),
        ("ROWS FROM (now(), timeofday()) r", "r"), ("u TABLESAMPLE system (1)", "u"),
        ("(SELECT 1 AS a) s", "s"), ("(VALUES (1)) AS w (a)", "w"),
        ("JSON_TABLE('[1]', '$[*]' COLUMNS (a int)) AS n", "n"),
    ):  # fmt: skip
        for text in (
            f"DELETE FROM t USING {sources} WHERE {qualifier}.a = 1",
            f"UPDATE t SET b = 1 FROM {sources} WHERE {qualifier}.a = 1",
            f"DELETE FROM t WHERE EXISTS (SELECT 1 FROM {sources} WHERE {qualifier}.a = 1)",
        ):
            assert classify(text).statements[0].unbounded, text
            bound = text.replace(".a = 1", ".a = t.a")
            assert not classify(bound).statements[0].unbounded, bound


def test_tables_of_one_name_are_told_by_their_schemas() -> None:
    """As SQLAlchemy writes tables that have one; where one is written without, it may be either."""
    for bound in ("a.t.id = b.t.id", "b.t.x = 1 AND a.t.id = 1", "(a.t.id, 1) = (1, 1)"):
        for text in (
            f"DELETE FROM a.t USING b.t WHERE {bound}",
            f"DELETE FROM a.t WHERE EXISTS (SELECT 1 FROM b.t WHERE {bound})",
        ):
            assert not classify(text).statements[0].unbounded, text
            for other in (text.replace("a.t.", "b.t."), text.replace("b.t", "t")):
                assert classify(other).statements[0].unbounded, other
