"""Grants of roles: what is read, what is refused, and that nothing but what was read is written."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.sql_grants import (
    ALLOWED,
    GRANT_CHARACTERS_MAX,
    NAMES_MAX,
    GrantError,
    parse_grant,
    parse_identifier,
    quoted,
    serialize_grant,
)

SHAPE = re.compile(
    r"GRANT [A-Z]+(?: \(\"(?:[^\"]|\"\")+\"(?:, \"(?:[^\"]|\"\")+\")*\))?"
    r"(?:, [A-Z]+(?: \(\"(?:[^\"]|\"\")+\"(?:, \"(?:[^\"]|\"\")+\")*\))?)*"
    r" ON [A-Z ]+ \".*\"(?:\([^\"';]*\)|\( [^\"';]*\))? TO \"role\"",
    re.DOTALL,
)


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("SELECT ON ALL TABLES IN SCHEMA public", 'SELECT ON ALL TABLES IN SCHEMA "public"'),
        ("select,Insert on Orders", 'SELECT, INSERT ON TABLE "public"."orders"'),
        ("SELECT (id, state) ON TABLE shop.orders",
         'SELECT ("id", "state") ON TABLE "shop"."orders"'),
        ('SELECT ON "Shop"."Or""ders", x', 'SELECT ON TABLE "Shop"."Or""ders", "public"."x"'),
        ("USAGE ON SCHEMA a, b", 'USAGE ON SCHEMA "a", "b"'),
        ("USAGE ON SEQUENCE s", 'USAGE ON SEQUENCE "public"."s"'),
        ("TEMP, CONNECT ON DATABASE d", 'TEMPORARY, CONNECT ON DATABASE "d"'),
        ("EXECUTE ON FUNCTION f(integer, double precision)",
         'EXECUTE ON FUNCTION "public"."f"( integer , double precision )'),
        ("EXECUTE ON FUNCTION f(numeric(10,2)[])",
         'EXECUTE ON FUNCTION "public"."f"( numeric ( 10 , 2 ) [] )'),
        ("EXECUTE ON ALL ROUTINES IN SCHEMA s", 'EXECUTE ON ALL ROUTINES IN SCHEMA "s"'),
    ],
)  # fmt: skip
def test_what_is_read(text: str, sql: str) -> None:
    """Words in any case; identifiers folded as the server does, and quoted by us."""
    assert serialize_grant(parse_grant(text), "role") == f'GRANT {sql} TO "role"'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "unknown privilege"),
        ("SELECT", "ON is wanted"),
        ("SELECT ON", "ends too early"),
        ("ALL ON orders", "write the privileges"),
        ("ALL PRIVILEGES ON orders", "write the privileges"),
        ("SELECT ON orders; DROP TABLE orders", "unexpected"),
        ("SELECT ON orders TO public", "unexpected"),
        ("SELECT ON orders WITH GRANT OPTION", "unexpected"),
        ("SELECT ON orders -- x", "unexpected"),
        ("SELECT ON 'orders'", "unexpected"),
        ("SELECT ON a.b.c", "at most 2 parts"),
        ("USAGE ON SCHEMA a.b", "at most 1 parts"),
        ("USAGE ON orders", "USAGE is no privilege on TABLE"),
        ("CREATE ON DATABASE d, SCHEMA x", "unexpected"),
        ("SELECT (a) ON SEQUENCE s", "has no columns"),
        ("DELETE (a) ON orders", "has no columns"),
        ("SELECT (a) ON ALL TABLES IN SCHEMA public", "has no columns"),
        ("SELECT ON ALL THINGS IN SCHEMA public", "unknown kind"),
        ("SELECT ON ALL TABLES", "IN is wanted"),
        ("EXECUTE ON FUNCTION f", "is wanted"),
        ("EXECUTE ON FUNCTION f(integer", "ends too early"),
        ('EXECUTE ON FUNCTION f("x")', "unquoted words"),
        ("SET ON PARAMETER log_statement", "unknown privilege"),
        ("SELECT ON LARGE OBJECT 1", "unexpected"),
        ("pg_read_all_data", "unknown privilege"),
        ('SELECT ON "a\nb"', "printable"),
        ('SELECT ON ""', "unexpected"),
    ],
)
def test_what_is_refused(text: str, why: str) -> None:
    """Anything that is not of the grammar, with a reason."""
    with pytest.raises(GrantError, match=re.escape(why)):
        parse_grant(text)


def test_bounds() -> None:
    """At each limit it is read; one past it, it is refused."""
    name = "n" * 63
    parse_grant(f"SELECT ON {name}")
    with pytest.raises(GrantError, match="63 bytes"):
        parse_grant(f"SELECT ON {name}n")
    parse_identifier('"' + "é" * 31 + 'x"')
    with pytest.raises(GrantError, match="63 bytes"):
        parse_identifier('"' + "é" * 32 + '"')
    parse_grant("SELECT ON " + ", ".join(["t"] * NAMES_MAX))
    with pytest.raises(GrantError, match=f"more than {NAMES_MAX}"):
        parse_grant("SELECT ON " + ", ".join(["t"] * (NAMES_MAX + 1)))
    start = "SELECT ON t"
    parse_grant(start.ljust(GRANT_CHARACTERS_MAX))
    with pytest.raises(GrantError, match=f"at most {GRANT_CHARACTERS_MAX}"):
        parse_grant(start.ljust(GRANT_CHARACTERS_MAX + 1))


@given(
    st.lists(
        st.sampled_from(
            ["SELECT", "INSERT", "USAGE", "ON", "ALL", "TABLES", "IN", "SCHEMA", "FUNCTION",
             "TABLE", "orders", '"o""r"', "(", ")", ",", ".", "integer", "[]", "TO", ";", "'", "--",
             "/*", '"', "$1", "10", "\n", "é", "EXECUTE"]
        ),
        max_size=14,
    ).map(" ".join)
    | st.text(max_size=80)
)  # fmt: skip
def test_nothing_breaks_out(text: str) -> None:
    """Whatever is read is written as one GRANT of quoted names to one quoted role."""
    try:
        grant_ = parse_grant(text)
    except GrantError:
        return
    assert SHAPE.fullmatch(serialize_grant(grant_, "role"))
    assert grant_.kind in ALLOWED
    assert ";" not in re.sub(r'"(?:[^"]|"")*"', "", serialize_grant(grant_, "role"))


@given(st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()))
def test_identifiers_are_read_back(name: str) -> None:
    """What is quoted by us is read as the same name."""
    if len(name.encode("utf-8", "replace")) <= 63:
        assert parse_identifier(quoted(name)) == name
