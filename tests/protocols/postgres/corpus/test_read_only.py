"""The classifier against a real server: what it calls a read runs where nothing may be written."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from agent.model.sql import Effect
from agent.protocols.postgres.sql import classify
from agent.protocols.postgres.sql.danger import BUILT_IN
from agent.protocols.postgres.sql.functions import effect_of
from agent.protocols.postgres.sql.reading import READING
from tests.protocols.postgres.corpus.asking import READ_ONLY, Asking, a_server
from tests.protocols.postgres.corpus.generated import texts
from tests.protocols.postgres.corpus.reading import benign, danger, nasty
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.servers
LIMIT_MS = 1_000  # for a text that would be long at it: how it begins is enough
UNDO = "ROLLBACK; RESET ALL; RESET default_transaction_read_only"
HARMLESS = {Effect.READ, Effect.SESSION}
ARGUMENTS = {  # values that most functions take
    "int4": "1", "int8": "1::int8", "int2": "1::int2", "text": "'a'::text", "bool": "true",
    "regclass": "'orders'::regclass", "oid": "'orders'::regclass::oid", "name": "'orders'::name",
    "numeric": "1.5", "float8": "1.5::float8", "json": "'[1]'::json", "jsonb": "'[1]'::jsonb",
    "anyelement": "1", "anyarray": "ARRAY[1]", "timestamptz": "now()", "date": "current_date",
    "bytea": "'a'::bytea", "interval": "'1 second'::interval", "pg_lsn": "'0/0'::pg_lsn",
    "_text": "ARRAY['a']",
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server for this module's sessions."""
    with a_server() as running:
        yield running


@pytest.fixture(scope="module")
def session(server: Postgres) -> Iterator[Asking]:
    """A session for one text after the other."""
    asking = Asking(server, options="-c search_path=public")
    yield asking
    asking.close()


def _inside_read_only(session: Asking, text: str, limit_ms: int = LIMIT_MS) -> list[str]:
    """Return the text's errors. What the text before it left is undone first.

    The limit of that one holds until it is rolled back, and a busy machine may reach it there.
    """
    begin = f"BEGIN READ ONLY; SET LOCAL statement_timeout = {limit_ms}"
    while True:
        undone, begun, found = session.ask_each(UNDO, begin, text)
        if not undone:
            assert begun == []
            return found


def test_what_is_called_a_read_writes_nothing(session: Asking) -> None:
    """No text of the corpora that is called harmless raises 25006 in a read-only transaction."""
    tried = 0
    for _, text in [*benign(), *nasty()]:
        if danger(classify(text)):
            continue
        tried += 1
        assert READ_ONLY not in _inside_read_only(session, text), text
    assert tried > 400


def test_the_server_tells_writes_apart(session: Asking) -> None:
    """The check can fail: a write of each kind does raise 25006 there."""
    for text in (
        "INSERT INTO refunds DEFAULT VALUES",
        "SELECT * FROM orders FOR UPDATE",
        "SELECT nextval('orders_id_seq')",
        "SELECT ('orders_id_seq'::regclass).nextval",
        "SELECT f.nextval FROM to_regclass('orders_id_seq') AS f",
        "EXPLAIN ANALYZE DELETE FROM refunds",
        "WITH d AS (DELETE FROM refunds RETURNING *) SELECT * FROM d",
    ):
        assert READ_ONLY in _inside_read_only(session, text, limit_ms=0), text
        assert danger(classify(text)), text


@given(text=texts())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_generated_statements(session: Asking, text: str) -> None:
    """The same for statements made of a grammar that mixes reads with writes at every place."""
    if not danger(classify(text)):
        assert READ_ONLY not in _inside_read_only(session, text), text


def test_every_harmless_function_of_the_server(server: Postgres, session: Asking) -> None:
    """Each built-in function that the lists call harmless runs without 25006."""
    rows = server.ask(
        "SELECT proname, array_to_string(ARRAY(SELECT typname FROM unnest(proargtypes) WITH"
        " ORDINALITY AS a (t, o) JOIN pg_type ON pg_type.oid = t ORDER BY o), ',') FROM pg_proc"
        " WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind IN ('f', 'a', 'w')"
    )
    tried = 0
    for name, types in rows:
        if effect_of("pg_catalog", name) not in HARMLESS or name.startswith("pg_sleep"):
            continue
        arguments = [ARGUMENTS.get(kind, f"NULL::{kind}") for kind in types.split(",") if kind]
        text = f'SELECT pg_catalog."{name}"({", ".join(arguments)})'
        tried += 1
        assert READ_ONLY not in _inside_read_only(session, text), text
    assert tried > 2000


def test_volatile_functions_were_reviewed(server: Postgres) -> None:
    """No function that the server calls volatile is a read by the generated list alone."""
    rows = server.ask(
        "SELECT DISTINCT proname FROM pg_proc WHERE provolatile = 'v'"
        " AND pronamespace = 'pg_catalog'::regnamespace"
        " AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)"
    )
    volatile = {name for (name,) in rows}
    assert not volatile & (READING - set(BUILT_IN))
    assert not READING & set(BUILT_IN)
