"""Ways past a filter that were executed on live servers: each does harm without our pins.

Each test first shows on a real server, without anything of ours, that the way works; and then
that the classification, with what it says of pinned settings, stops it.
"""

from collections.abc import Callable, Iterator

import pytest

from agent.protocols.postgres.settings import PINNED, READ_ONLY
from agent.protocols.postgres.sql import classify, touches_pinned
from agent.protocols.postgres.transitions import as_heard
from tests.protocols.postgres.corpus.asking import Asking, a_server
from tests.protocols.postgres.corpus.reading import danger
from tests.servers.postgres import Postgres, version

pytestmark = pytest.mark.servers
Connect = Callable[..., Asking]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server for this module."""
    with a_server() as running:
        yield running


@pytest.fixture
def connect(server: Postgres) -> Iterator[Connect]:
    """Open sessions; the table `prey` is there at the start."""
    server.ask("CREATE TABLE IF NOT EXISTS prey (id int)")
    opened: list[Asking] = []

    def open_one(**settings: str) -> Asking:
        opened.append(Asking(server, **settings))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def _alive(server: Postgres) -> bool:
    return server.ask("SELECT to_regclass('prey') IS NOT NULL") == [("t",)]


def _refused(text: str, *, read_only: bool = False) -> bool:
    return any(touches_pinned(each, read_only=read_only) for each in classify(text).statements)


def test_parameters_are_no_dollar_quotes(server: Postgres, connect: Connect) -> None:
    """A DROP between two PREPAREs is a statement of its own, as the server takes it."""
    text = "PREPARE p(int,int) AS SELECT $1,$2; DROP TABLE prey; PREPARE q(int,int) AS SELECT $1,$2"
    assert connect().ask(text) == []
    assert not _alive(server)
    found = classify(text)
    assert [each.kind for each in found.statements] == ["PREPARE", "DROP TABLE", "PREPARE"]
    assert danger(found) == "D"


@pytest.mark.parametrize("startup", [False, True])
def test_backslashes_in_plain_strings(server: Postgres, connect: Connect, startup: bool) -> None:
    """Text that means a DROP with standard_conforming_strings off needs the setting: pinned."""
    text = r"SELECT 'a\' , ' ; DROP TABLE prey; -- '"
    setting = "SET standard_conforming_strings = off"
    assert not danger(classify(text))  # a read, where the setting is on
    assert connect().ask(text) == []
    assert _alive(server)
    if startup:  # refused by the opening's own list of settings
        session = connect(options="-c standard_conforming_strings=off")
    else:
        session = connect()
        assert session.ask(setting) == []
    assert session.ask(text) == []
    assert not _alive(server)
    assert _refused(setting)
    assert _refused("SELECT set_config('standard_conforming_strings', 'off', false)")
    assert _refused("UPDATE pg_settings SET setting = 'off' WHERE name LIKE 'standard_conf%'")


def test_a_character_that_ends_in_a_backslash(server: Postgres, connect: Connect) -> None:
    """In SJIS two bytes are one character; such text is no UTF-8, and SJIS is refused."""
    text = b"SELECT E'\x95\x5c' ; DROP TABLE prey; -- '"
    session = connect()
    assert session.ask("SET client_encoding = 'SJIS'") == []
    assert session.ask(text) == []
    assert not _alive(server)
    assert _refused("SET client_encoding = 'SJIS'")
    with pytest.raises(UnicodeDecodeError):
        text.decode()
    assert danger(classify(text.decode(errors="surrogateescape"))) == "U"


GOING_BACK = (
    "RESET ALL",
    "DISCARD ALL",
    "RESET client_encoding; RESET standard_conforming_strings; RESET backslash_quote",
    "SET client_encoding TO DEFAULT; SET standard_conforming_strings TO DEFAULT",
    "SET NAMES DEFAULT; SET LOCAL backslash_quote TO DEFAULT; RESET default_transaction_read_only",
    "SELECT set_config('standard_conforming_strings', NULL, false)",
    "RESET ROLE; RESET SESSION AUTHORIZATION; SET ROLE NONE; SET SESSION AUTHORIZATION DEFAULT",
)


@pytest.mark.parametrize("text", GOING_BACK)
def test_what_a_session_goes_back_to(server: Postgres, connect: Connect, text: str) -> None:
    """It is what it began with, also where role and database have settings of their own.

    So these are not refused, which drivers and pools send.
    """
    server.ask("ALTER DATABASE orders SET standard_conforming_strings = off")
    server.ask("ALTER ROLE postgres SET backslash_quote = on")
    try:
        session = connect(**PINNED, **{READ_ONLY: "on"})
        assert not _refused(text, read_only=True)
        assert session.ask(text) == []
        for name, value in {**PINNED, READ_ONLY: "on", "role": "none"}.items():
            assert session.ask(f"SELECT 1 / (current_setting('{name}') = '{value}')::int") == []
        assert session.ask("SELECT 1 / (session_user = 'postgres')::int") == []
    finally:
        server.ask("ALTER DATABASE orders RESET ALL; ALTER ROLE postgres RESET ALL")


READ_WRITE = (
    "SELECT 1; COMMIT; SET TRANSACTION READ WRITE; DROP TABLE prey",
    "BEGIN READ WRITE; DROP TABLE prey; COMMIT",
    "START TRANSACTION READ WRITE; DROP TABLE prey; COMMIT",
    "SET default_transaction_read_only = off; COMMIT; DROP TABLE prey",
    "BEGIN; RESET transaction_read_only; DROP TABLE prey; COMMIT",
    "BEGIN; SET LOCAL transaction_read_only TO DEFAULT; DROP TABLE prey; COMMIT",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; COMMIT; DROP TABLE prey",
)


@pytest.mark.parametrize("text", READ_WRITE)
def test_leaving_read_only(server: Postgres, connect: Connect, text: str) -> None:
    """A session that is read-only by default leaves it by any of these, if it may send them."""
    session = connect(options="-c default_transaction_read_only=on")
    assert session.ask("DROP TABLE prey") == ["25006"]
    if version() >= 18 and "transaction_read_only" in text.replace("default_transaction", ""):
        assert session.ask(text) == ["0A000"]  # "cannot be reset"
    else:
        assert session.ask(text) == []
        assert not _alive(server)
    assert _refused(text, read_only=True)
    assert not _refused(text, read_only=False)


def test_settings_are_a_table_too(connect: Connect) -> None:
    """An UPDATE of pg_settings changes a setting, and counts as changing any."""
    text = "UPDATE pg_settings SET setting = 'off' WHERE name = 'standard_conforming_strings'"
    session = connect()
    assert session.ask(text) == []
    assert (
        session.ask(r"SELECT 1 / (current_setting('standard_conforming_strings') = 'off')::int")
        == []
    )
    assert _refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT ('orders_id_seq'::regclass).nextval",
        "SELECT f.nextval FROM to_regclass('orders_id_seq') AS f",
        "SELECT (x.f).nextval FROM (SELECT 'orders_id_seq'::regclass AS f) AS x",
    ],
)
def test_calls_that_look_like_columns(server: Postgres, connect: Connect, text: str) -> None:
    """Attribute notation calls functions; it is seen as the call it is."""
    before = server.ask("SELECT last_value FROM orders_id_seq")
    assert connect().ask(text) == []
    assert connect().ask(text) == []
    assert server.ask("SELECT last_value FROM orders_id_seq") != before
    assert danger(classify(text)) == "W"


@pytest.mark.parametrize("value", ["UTF8", "utf-8", "unicode", "Utf_8"])
def test_spellings_of_utf8_are_the_servers(connect: Connect, value: str) -> None:
    """What counts as the pinned encoding is it to the server."""
    session = connect()
    text = f"SET client_encoding = '{value}'"
    assert not _refused(text)
    assert session.ask(text) == []
    assert session.ask("SELECT 1 / (current_setting('client_encoding') ~* '^(utf|uni)')::int") == []


@pytest.mark.parametrize(
    ("call", "since"),
    [
        ("JSON_ARRAY(1)", 16),
        ("JSON_ARRAYAGG(1)", 16),
        ("JSON(1)", 17),
        ("JSON_SCALAR(1)", 17),
        ("JSON_SERIALIZE(1)", 17),
        ("JSON_EXISTS(1, '$')", 17),
        ("JSON_QUERY(1, '$')", 17),
        ("JSON_VALUE(1, '$')", 17),
        ("MERGE_ACTION()", 17),
    ],
)
def test_words_that_older_servers_take_for_functions(
    server: Postgres, connect: Connect, call: str, since: int
) -> None:
    """Somebody's function of that name is run by an older server: it is unknown there."""
    name, _, arguments = call.partition("(")
    types = {")": "", "1)": "int", "1, '$')": "int, text"}[arguments]
    if version() < since:
        server.ask(
            f"CREATE OR REPLACE FUNCTION {name}({types}) RETURNS int LANGUAGE plpgsql"
            " AS $$BEGIN DROP TABLE IF EXISTS prey; RETURN 1; END$$"
        )
        try:
            assert connect().ask(f"SELECT {call}") == []
            assert not _alive(server)
        finally:
            server.ask(f"DROP FUNCTION {name}({types})")
    found = classify(f"SELECT {call}")
    assert danger(as_heard(found, since - 1)) == danger(as_heard(found, 0)) == "U"
    assert danger(as_heard(found, since)) == ""


EVIL = "LANGUAGE plpgsql AS $$BEGIN DROP TABLE IF EXISTS prey; RETURN 1; END$$"
HIDDEN_CALLS = {  # what is made, how it is used, what is called
    "an operator": (
        "CREATE OPERATOR !!! (FUNCTION = evil, RIGHTARG = int)", "SELECT !!! 1", "evil",
    ),
    "an operator of a built-in": (
        "CREATE OPERATOR ### (FUNCTION = pg_read_file, RIGHTARG = text)",
        "SELECT ### 'PG_VERSION'", "pg_read_file",
    ),
    "a cast": (
        ("CREATE TYPE odd AS (a int); CREATE FUNCTION to_odd(int) RETURNS odd LANGUAGE plpgsql"
        " AS $$BEGIN DROP TABLE IF EXISTS prey; RETURN ROW(1); END$$;"
        " CREATE CAST (int AS odd) WITH FUNCTION to_odd(int)"),
        "SELECT 1::odd", "to_odd",
    ),
    "an aggregate": (
        "CREATE AGGREGATE sums(int) (SFUNC = evil2, STYPE = int)", "SELECT sums(1)", "evil2",
    ),
    "a trigger": (
        ("CREATE TABLE touched (a int); CREATE TRIGGER t AFTER INSERT ON touched"
        " EXECUTE FUNCTION on_touch()"),
        "INSERT INTO touched VALUES (1)", "on_touch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", HIDDEN_CALLS)
def test_what_calls_a_function_unnamed(server: Postgres, connect: Connect, way: str) -> None:
    """Whoever makes an operator, cast, aggregate or trigger is taken for who calls its function."""
    made, used, function = HIDDEN_CALLS[way]
    server.ask(
        f"CREATE OR REPLACE FUNCTION evil(int) RETURNS int {EVIL};"
        f"CREATE OR REPLACE FUNCTION evil2(int, int) RETURNS int {EVIL};"
        f"CREATE OR REPLACE FUNCTION on_touch() RETURNS trigger {EVIL.replace('1;', 'NULL;')}"
    )
    session = connect()
    assert session.ask(made) == []
    assert session.ask(used) == []
    assert not _alive(server) or "built-in" in way
    calls = {call.name for each in classify(made).statements for call in each.calls}
    assert function in calls
    assert set(danger(classify(made))) & {"A", "U"}


@pytest.mark.parametrize(
    "made",
    [
        f"CREATE FUNCTION lower(int) RETURNS int {EVIL}",
        f"CREATE FUNCTION tame(int) RETURNS int {EVIL}; ALTER FUNCTION tame(int) RENAME TO lower",
        (
            f"CREATE SCHEMA IF NOT EXISTS side; CREATE FUNCTION side.lower(int) RETURNS int {EVIL};"
            " ALTER FUNCTION side.lower(int) SET SCHEMA public"
        ),
    ],
)
def test_a_function_with_a_built_ins_name(server: Postgres, connect: Connect, made: str) -> None:
    """A call of it looks like one of the built-in function: to make one is unknown."""
    session = connect()
    assert session.ask(made) == []
    try:
        assert session.ask("SELECT lower(1)") == []
        assert not _alive(server)
    finally:
        server.ask("DROP FUNCTION lower(int)")
    assert danger(classify("SELECT lower(1)")) == ""
    assert "U" in danger(classify(made))
