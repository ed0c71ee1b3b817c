"""Ways to read a column without its name that were executed on a live server through our rules.

Each test first shows on a real server that the text tells something of `customers.card`, and then
that the classification has that column, or any column of its table.
"""

from collections.abc import Iterator

import pytest

from agent.model.sql import Column, Relation
from agent.protocols.postgres.sql import classify
from tests.protocols.postgres.corpus.asking import a_server
from tests.servers.postgres import Postgres, version

pytestmark = pytest.mark.servers
CARD = "4111 1111 1111 0001"
ANY_OF_CUSTOMERS = {Column("customers", "*"), Column("customers", "card"), Column("", "card")}
ANY_OF_ALL = Column("*", "*")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server for this module."""
    with a_server() as running:
        yield running


def _columns(text: str) -> set[Column]:
    (statement,) = classify(text).statements
    return set(statement.columns_read)


@pytest.mark.parametrize(
    "function",
    [
        "row_to_json", "to_json", "to_jsonb", "json_agg", "jsonb_agg", "array_agg", "concat",
        "record_out", "quote_literal", "quote_nullable", "json_build_array", "jsonb_build_array",
    ],
)  # fmt: skip
def test_a_function_of_the_row_that_looks_like_a_column(server: Postgres, function: str) -> None:
    """`c.to_json` is to_json(c): all columns."""
    text = f"SELECT c.{function} FROM customers c WHERE id = 1"
    assert CARD in server.ask(text)[0][0]
    assert _columns(text) & ANY_OF_CUSTOMERS
    text = f"SELECT public.customers.{function} FROM public.customers WHERE id = 1"
    assert CARD in server.ask(text)[0][0]
    assert _columns(text) & ANY_OF_CUSTOMERS


@pytest.mark.parametrize(
    "text",
    [
        "SELECT j FROM (customers CROSS JOIN (SELECT 1) x) AS j WHERE id = 1",
        "SELECT j.to_json FROM (customers CROSS JOIN (SELECT 1) x) AS j WHERE id = 1",
        "SELECT d FROM (customers CROSS JOIN (SELECT 1) x) AS j (a, b, c, d) WHERE a = 1",
        (
            "SELECT k.d FROM (((SELECT 1) x CROSS JOIN customers) AS j (o, a, b, c, d)"
            " CROSS JOIN (SELECT 2) y) AS k WHERE a = 1"
        ),
        (
            "SELECT k.o FROM ((customers CROSS JOIN (SELECT 1) x) AS j CROSS JOIN (SELECT 2) y)"
            " AS k (a, b, c, o) WHERE a = 1"
        ),
    ],
)
def test_an_alias_of_a_join(server: Postgres, text: str) -> None:
    """It stands for the rows of all that is joined, with other names if it has a list of them."""
    assert CARD in server.ask(text)[0][0]
    assert _columns(text) & ANY_OF_CUSTOMERS


def test_a_natural_join_compares_columns_that_it_does_not_name(server: Postgres) -> None:
    """It tells whether a value is there, and so every value of a small domain."""
    text = "SELECT v.told FROM customers c NATURAL JOIN (VALUES ('{}', 'yes')) AS v (card, told)"
    assert server.ask(text.format(CARD)) == [("yes",)]
    assert server.ask(text.format("none")) == []
    assert _columns(text) & ANY_OF_CUSTOMERS


def test_a_word_that_an_older_server_takes_for_a_name(server: Postgres) -> None:
    """SYSTEM_USER is a function since PostgreSQL 16, and before may be a table's whole row."""
    text = 'SELECT system_user FROM customers AS "system_user" WHERE id = 1'
    if version() < 16:
        assert CARD in server.ask(text)[0][0]
    assert _columns(text) & ANY_OF_CUSTOMERS
    assert Column("", "system_user") in _columns("SELECT system_user FROM customers")


@pytest.mark.parametrize(
    "text",
    [
        "SELECT histogram_bounds FROM pg_stats WHERE attname = 'card'",
        "SELECT stavalues1 FROM pg_catalog.pg_statistic WHERE starelid = 'customers'::regclass",
    ],
)
def test_statistics_have_values(server: Postgres, text: str) -> None:
    """What the planner keeps of a column's values is a read of any column of any table."""
    server.ask("ANALYZE customers")
    assert "4111 1111 1111" in " ".join(row[0] for row in server.ask(text))
    assert ANY_OF_ALL in _columns(text)


def test_large_values_lie_in_a_table_of_their_own(server: Postgres) -> None:
    """Whose name has the number of the table that they are of."""
    server.ask(
        "CREATE TABLE secrets (secret text);"
        "ALTER TABLE secrets ALTER secret SET STORAGE EXTERNAL;"
        "INSERT INTO secrets VALUES (repeat('4111 1111 1111 0001', 1000))"
    )
    ((toast,),) = server.ask("SELECT reltoastrelid::regclass FROM pg_class WHERE relname='secrets'")
    text = f"SELECT encode(chunk_data, 'escape') FROM {toast}"
    assert CARD in server.ask(text)[0][0]
    assert ANY_OF_ALL in _columns(text)


def test_a_large_object_is_data_without_a_table() -> None:
    """A rule with tables does not cover it, unless it names the server's table of them."""
    for text in ("SELECT lo_get(1)", "SELECT pg_catalog.loread(1, 10)"):
        (statement,) = classify(text).statements
        assert Relation("pg_catalog", "pg_largeobject") in statement.reads


def test_a_rows_size_tells_of_its_columns(server: Postgres) -> None:
    """`c.pg_column_size` is of the whole row."""
    text = "SELECT c.pg_column_size FROM customers c WHERE id = 1"
    assert int(server.ask(text)[0][0]) > 24
    assert _columns(text) & ANY_OF_CUSTOMERS
