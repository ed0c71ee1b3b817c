"""classify: what it says of statements, and its limits."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.model.sql import Call, Column, Effect, Relation, Statement
from agent.protocols.postgres.sql import CLASSIFY_BYTES_MAX, classify
from agent.protocols.postgres.sql.classifying import STATEMENTS_MAX
from agent.protocols.postgres.sql.columns import MEANINGS_MAX
from agent.protocols.postgres.sql.walk import NESTING_MAX
from agent.protocols.postgres.sql.words import words

UNKNOWN = frozenset({Effect.UNKNOWN})
WORDS = words(
    """
SELECT FROM WHERE WITH a AS ( ) , ; DELETE INSERT INTO t VALUES UPDATE SET = 1 'x' $$ " ' E'\\'
-- /* */ UNION ALL nextval COPY TO STDOUT PROGRAM EXPLAIN ANALYZE $1 :: . * FOR ROLE DO
"""
)


def _one(text: str) -> Statement:
    (statement,) = classify(text).statements
    return statement


def test_a_query_says_what_it_reads() -> None:
    """Relations, columns by their relation's name, calls, rows, and the text without literals."""
    found = classify(
        "SELECT c.name, total, lower(c.email) FROM shop.customers c, orders WHERE id=7"
    )
    assert found.statements == (
        Statement(
            "SELECT",
            frozenset({Effect.READ}),
            reads=found.statements[0].reads,
            columns_read=found.statements[0].columns_read,
            calls=(Call("", "lower", Effect.READ),),
            returns_rows=True,
        ),
    )
    assert set(found.statements[0].reads) == {
        Relation("shop", "customers"),
        Relation("", "orders"),
    }
    assert set(found.statements[0].columns_read) == {
        Column("customers", "name"),
        Column("customers", "email"),
        Column("", "total"),
        Column("", "id"),
    }
    assert found.normalized.endswith("WHERE id=$1")


@pytest.mark.parametrize(
    ("text", "relations"),
    [
        ("WITH users AS (SELECT * FROM users) SELECT * FROM users", {"users"}),
        ("WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b", set()),
        ("WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a, b", {"b"}),
        ("WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a, b", set()),
        ("WITH RECURSIVE a AS (SELECT 1 UNION SELECT * FROM a) SELECT * FROM a", set()),
        ("WITH a AS (SELECT 1) SELECT * FROM (SELECT * FROM a) x, public.a", {"a"}),
        ("SELECT * FROM (WITH a AS (SELECT 1) TABLE a) x, a", {"a"}),
        ("WITH a AS (SELECT 1) SELECT (SELECT * FROM a), b.x FROM b", {"b"}),
        ("(WITH a AS (SELECT 1) TABLE a) UNION (TABLE a)", {"a"}),
    ],
)
def test_names_of_with_queries_are_no_relations(text: str, relations: set[str]) -> None:
    """A WITH query's name hides a relation exactly where the server would see it."""
    assert {each.name for each in _one(text).reads} == relations


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("SELECT * FROM users u", {Column("users", "*")}),
        ("SELECT u FROM users u", {Column("users", "*"), Column("", "u")}),
        ("SELECT row_to_json(users) FROM users", {Column("users", "*"), Column("", "users")}),
        ("SELECT u.ssn FROM users u", {Column("users", "ssn")}),
        ("SELECT c FROM users u (a, b, c)", {Column("users", "*"), Column("", "c")}),
        ("SELECT * FROM (SELECT id FROM users) x", {Column("", "id")}),
        ("COPY users (id) TO STDOUT", {Column("users", "id")}),
        ("COPY users TO STDOUT", {Column("users", "*")}),
        ("TABLE users", {Column("users", "*")}),
        ("DELETE FROM users WHERE id = 1 RETURNING *", {Column("users", "*"), Column("", "id")}),
        ("SELECT 1 FROM a JOIN b USING (ssn)", {Column("", "ssn")}),
        ("SELECT (u).ssn FROM users u", {Column("users", "*"), Column("", "u")}),
    ],
)
def test_columns_read(text: str, columns: set[Column]) -> None:
    """Stars and whole rows are given as every column of their relation."""
    assert set(_one(text).columns_read) == columns


@pytest.mark.parametrize("table", ["pg_authid", "pg_shadow", "pg_catalog.pg_user_mapping"])
def test_reading_passwords_is_no_plain_read(table: str) -> None:
    """What has passwords or their verifiers is the server's; pg_roles has none."""
    assert _one(f"SELECT rolname FROM {table}").effects == {Effect.READ, Effect.ADMIN}
    assert _one("SELECT rolname FROM pg_roles").effects == {Effect.READ}
    assert _one("SELECT rolname FROM app.pg_shadow").effects == {Effect.READ}


def test_a_name_for_many_relations() -> None:
    """Of MEANINGS_MAX relations a column is of each; of one more, it is of any."""
    fits = [f"t{number}" for number in range(MEANINGS_MAX)]
    text = "SELECT z.a, z.to_json, z FROM " + ", ".join(f"{name} z" for name in fits)
    expected = {Column(name, column) for name in fits for column in ("a", "to_json", "*")}
    assert set(_one(text).columns_read) == expected | {Column("", "z")}
    expected = {Column("", name) for name in ("a", "to_json", "*", "z")}
    assert set(_one(f"{text}, more z").columns_read) == expected


def test_columns_written() -> None:
    """INSERT, UPDATE and MERGE say which columns they set."""
    assert _one("INSERT INTO t (a, b) VALUES (1, 2)").columns_written == (
        Column("t", "a"),
        Column("t", "b"),
    )
    assert _one("INSERT INTO t VALUES (1)").columns_written == (Column("t", "*"),)
    assert _one("UPDATE t SET a = 1").columns_written == (Column("t", "a"),)
    upsert = _one("INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET b = excluded.a")
    assert set(upsert.columns_written) == {Column("t", "a"), Column("t", "b")}


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("PREPARE p AS SELECT 1", ("PREPARE", "p")),
        ('EXECUTE "P"(1)', ("EXECUTE", "P")),
        ("DEALLOCATE p", ("DEALLOCATE", "p")),
        ("DEALLOCATE ALL", ("DEALLOCATE ALL", "")),
        ("EXPLAIN ANALYZE EXECUTE p", ("EXPLAIN ANALYZE", "p")),
        ("CREATE TABLE t AS EXECUTE p", ("CREATE TABLE AS", "p")),
    ],
)
def test_prepared_statements_are_named(text: str, prepared: tuple[str, str]) -> None:
    """The relay can look up what the name stands for."""
    found = _one(text)
    assert (found.kind, found.prepared) == prepared


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("SELECT 1", True),
        ("SELECT 1 INTO t", False),
        ("INSERT INTO t VALUES (1)", False),
        ("INSERT INTO t VALUES (1) RETURNING 1", True),
        ("WITH d AS (DELETE FROM t RETURNING 1) INSERT INTO u SELECT 1", False),
        ("EXPLAIN DELETE FROM t", True),
        ("SHOW ALL", True),
        ("FETCH c", True),
        ("MOVE c", False),
        ("SET a.b = 1", False),
        ("COPY t TO STDOUT", False),
    ],
)
def test_rows_come_back(text: str, rows: bool) -> None:
    """Whether the outermost statement gives rows."""
    assert _one(text).returns_rows is rows


def test_no_statement() -> None:
    """Text without a statement has none; it does nothing."""
    assert all(classify(text).statements == () for text in ("", " ; ;", "-- x", "/* x */"))


@pytest.mark.parametrize("text", ["SELECT 1\0; DROP TABLE t", "SELECT '\ud800'", "SELEC", "("])
def test_what_is_no_sql(text: str) -> None:
    """A zero byte, a lone surrogate and what does not parse are unknown, with a reason."""
    found = _one(text)
    assert found.effects == UNKNOWN
    assert found.why


def test_a_version_is_named() -> None:
    """The reason says which grammar it was that did not know the syntax."""
    assert "PostgreSQL 18" in _one("SELECT 1 NEW SYNTAX 2").why


def test_length() -> None:
    """Text of CLASSIFY_BYTES_MAX bytes is classified; of one more it is not."""
    text = "SELECT '" + "a" * (CLASSIFY_BYTES_MAX - 9) + "'"
    assert len(text) == CLASSIFY_BYTES_MAX
    assert _one(text).effects == {Effect.READ}
    assert str(CLASSIFY_BYTES_MAX) in _one(text.replace("aa", "aaa", 1)).why
    wide = text[:-3] + "ä'"
    assert len(wide) < CLASSIFY_BYTES_MAX
    assert _one(wide).effects == {Effect.READ}
    assert _one(wide.replace("aa", "aaaa", 1)).effects == UNKNOWN


def test_nesting() -> None:
    """A tree of NESTING_MAX levels is classified; one level more is not."""
    # "SELECT" to its expression are four levels, an operator is two
    fits = (NESTING_MAX - 4) // 2
    assert _one("SELECT a" + "+a" * fits).effects == {Effect.READ}
    assert f"{NESTING_MAX} levels" in _one("SELECT a" + "+a" * (fits + 1)).why
    assert _one("SELECT a" + "+a" * 30_000).effects == UNKNOWN


def test_how_many_statements() -> None:
    """A text of STATEMENTS_MAX statements is classified; of one more it is not."""
    assert len(classify("END;" * STATEMENTS_MAX).statements) == STATEMENTS_MAX
    assert str(STATEMENTS_MAX) in _one("END;" * (STATEMENTS_MAX + 1)).why


@given(st.one_of(st.text(), st.lists(st.sampled_from(sorted(WORDS))).map(" ".join)))
@settings(deadline=None, max_examples=500)
def test_any_text_has_a_class(text: str) -> None:
    """It returns for any text, the same each time, and no statement is without an effect."""
    found = classify(text)
    assert found == classify(text)
    for statement in found.statements:
        assert statement.effects
        assert bool(statement.why) is (Effect.UNKNOWN in statement.effects)
