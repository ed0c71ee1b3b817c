"""No secret of an SQL text is recorded; what is no secret stays."""

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.redaction_sql import redact_sql
from tests.unit.spent import is_quick

SECRET = "s3cr3t-Value"
WITH_SECRET = [
    "CREATE ROLE a LOGIN PASSWORD 's3cr3t-Value'",
    "alter user a with encrypted password 's3cr3t-Value' valid until 'infinity'",
    "ALTER ROLE a PASSWORD\n\t's3cr3t-Value'; SELECT 1",
    "ALTER ROLE a PASSWORD/* now */'s3cr3t-Value'",
    "ALTER ROLE a PASSWORD -- now\n 's3cr3t-Value'",
    "ALTER ROLE a PASSWORD E's3cr3t-Value'",
    "ALTER ROLE a PASSWORD U&'s3cr3t-Value'",
    "ALTER ROLE a PASSWORD E'x\\'s3cr3t-Value'",
    "ALTER ROLE a PASSWORD 'x''s3cr3t-Value'",
    "ALTER ROLE a PASSWORD $$s3cr3t-Value$$",
    "ALTER ROLE a PASSWORD $x$s3cr3t-Value$$$x$",
    "ALTER ROLE a PASSWORD 's3cr3t-Value",
    "ALTER ROLE a PASSWORD $$s3cr3t-Value",
    "DO $$ BEGIN EXECUTE 'ALTER ROLE a PASSWORD ''s3cr3t-Value'''; END $$",
    "EXECUTE 'EXECUTE ''ALTER ROLE a PASSWORD ''''s3cr3t-Value'''''''",
    "CREATE USER MAPPING FOR a SERVER b OPTIONS (user 'a', password 's3cr3t-Value')",
    "SELECT dblink('host=x password=s3cr3t-Value user=y', 'select 1')",
    "SELECT dblink_connect('postgres://app:s3cr3t-Value@db/x')",
    "CREATE SUBSCRIPTION a CONNECTION 'password=s3cr3t-Value' PUBLICATION b",
    "SELECT f(password => 's3cr3t-Value')",
    "SELECT f(secret := 's3cr3t-Value')",
    "UPDATE users SET password = 's3cr3t-Value' WHERE id = 1",
    "UPDATE users SET \"password\"='s3cr3t-Value'",
    "-- the password 'old\nALTER ROLE a PASSWORD 's3cr3t-Value'",
    "SELECT set_config('app.api_key', 's3cr3t-Value', false)",
]
WITHOUT = [
    "SELECT 1",
    "SELECT password FROM users WHERE name = 'alice'",
    "ALTER ROLE a PASSWORD NULL",
    "SELECT 'it''s' AS x, password_hash FROM users",
    "SELECT a FROM secrets WHERE b = 'c'",
    "SELECT 'https://example.com/a:b'",
    "SELECT u.secret, 'shown' FROM u",
]


@pytest.mark.parametrize("text", WITH_SECRET)
def test_a_secret_is_cut(text: str) -> None:
    """And the statement around it is still to be read."""
    shown = redact_sql(text)
    assert SECRET not in shown
    assert "[redacted]" in shown
    assert shown[:8] == text[:8]


@pytest.mark.parametrize("text", WITHOUT)
def test_what_is_no_secret_stays(text: str) -> None:
    """Names of columns and tables are no literals."""
    assert redact_sql(text) == text


def test_what_follows_a_secret_stays() -> None:
    """The rest of the text is recorded."""
    shown = redact_sql("ALTER ROLE a PASSWORD 'x'; DROP TABLE b; ALTER ROLE c PASSWORD ''")
    assert (
        shown
        == "ALTER ROLE a PASSWORD '[redacted]'; DROP TABLE b; ALTER ROLE c PASSWORD '[redacted]'"
    )


@given(st.text(alphabet="'$ \\eab;\n", max_size=20).filter(lambda text: SECRET not in text))
def test_whatever_stands_before_it(before: str) -> None:
    """A literal that stands alone is found behind any text."""
    assert SECRET not in redact_sql(f"{before} PASSWORD '{SECRET}' ")


@given(st.text(max_size=200))
def test_it_takes_any_text(text: str) -> None:
    """It never raises, and cutting again changes nothing that matters."""
    redact_sql(text)


@pytest.mark.parametrize(
    "piece",
    [
        "password ",
        "password '",
        "password ''",
        "password=",
        "password$$",
        "password $a$",
        "password 'x\\",
        "'",
        "a://",
        "/*",
    ],
)
def test_its_time_is_linear(piece: str) -> None:
    """200,000 characters of the worst take less than a second."""
    assert is_quick(functools.partial(redact_sql, piece * (200_000 // len(piece))), 1.0)
