"""Settings: what is pinned, what is harmless."""

import pytest

from agent.model.sql import Effect
from agent.protocols.postgres.sql import PINNED, breaks_pin, classify, touches_pinned
from agent.protocols.postgres.sql.settings import effect_of


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("SET a.b = 1, 'x', -2", (("a.b", "1, x, -2"),)),
        ("SET NAMES 'UTF8'", (("client_encoding", "UTF8"),)),
        ("SET NAMES DEFAULT", (("client_encoding", None),)),
        ("RESET ROLE", (("role", None),)),
        ("RESET ALL", (("*", None),)),
        ("DISCARD ALL", (("*", None),)),
        ("SET TIME ZONE 'UTC'", (("timezone", "UTC"),)),
        ("SET SCHEMA 's'", (("search_path", "s"),)),
        ("BEGIN READ ONLY", (("transaction_read_only", "on"),)),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE, NOT DEFERRABLE",
            (
                ("default_transaction_read_only", "off"),
                ("default_transaction_deferrable", "off"),
            ),
        ),
        ("SELECT set_config('Search_Path', NULL, true)", (("search_path", None),)),
        ("SELECT set_config($1, 'x', true)", (("?", "x"),)),
        ("SELECT set_config('role', $1, true)", (("role", "?"),)),
        ("ALTER ROLE r SET work_mem = '1GB'", (("work_mem", "1GB"),)),
        ("UPDATE pg_settings SET setting = 1 WHERE name = 'x'", (("?", "?"),)),
        ("SHOW work_mem", ()),
    ],
)
def test_what_a_statement_changes(text: str, settings: tuple[tuple[str, str | None], ...]) -> None:
    """Names in lower case, values as text, None for what the session began with."""
    (statement,) = classify(text).statements
    assert statement.settings == settings


@pytest.mark.parametrize("name", sorted(PINNED))
def test_each_pin(name: str) -> None:
    """Another value than the pinned one is refused, and so is one that only the server knows."""
    assert breaks_pin(name, "?", read_only=True)
    assert breaks_pin(name, "something", read_only=True)
    assert breaks_pin(name, None, read_only=True) is (name == "transaction_read_only")


def test_read_only_is_pinned_where_the_target_is() -> None:
    """Read-write is a harmless setting for other targets."""
    for name in ("default_transaction_read_only", "transaction_read_only"):
        assert breaks_pin(name, "off", read_only=True)
        assert not breaks_pin(name, "on", read_only=True)
        assert not breaks_pin(name, "off", read_only=False)
        assert effect_of(name, "off") is Effect.SESSION


def test_the_first_pinned_setting_is_named() -> None:
    """touches_pinned says which."""
    (statement,) = classify("SET ROLE admin").statements
    assert touches_pinned(statement) == "role"
    (statement,) = classify("SET search_path = x").statements
    assert not touches_pinned(statement)


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("work_mem", Effect.SESSION),
        ("search_path", Effect.SESSION),
        ("my.own", Effect.SESSION),
        ("log_statement", Effect.ADMIN),
        ("of_a_newer_server", Effect.ADMIN),
        ("?", Effect.ADMIN),
    ],
)
def test_effects_of_settings(name: str, effect: Effect) -> None:
    """What any role may set for itself is of the session; the rest is the server's."""
    assert effect_of(name, "x") is effect
