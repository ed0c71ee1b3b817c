"""Texts without their literals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocols.postgres.sql import classify

CANARY = "kanarienvogel"


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("SELECT 1, 'a' WHERE b = $1", "SELECT $2, $3 WHERE b = $1"),
        ("SET x.y = 'a', 1.5", "SET x.y = $1, $2"),
        ("SELECT 1 -- a\n, 2 /* /* b */ */", "SELECT $1  \n, $2"),
        ("CREATE ROLE r PASSWORD 'x'", "CREATE ROLE r PASSWORD $1"),
        ("DO $a$ x $b$ y $a$", "DO $1"),
        ("ALTER SYSTEM SET a = 'b'\n'c'", "ALTER SYSTEM SET a = $1"),
        ("NOTIFY c, U&'\\0061'", "NOTIFY c, $1"),
        ("SELEC 'x'", ""),
    ],
)
def test_literals_are_replaced(text: str, normalized: str) -> None:
    """Numbers and strings of each form have placeholders, comments go, names stay."""
    assert classify(text).normalized == normalized


@given(
    st.sampled_from(
        [
            "CREATE SERVER s FOREIGN DATA WRAPPER f OPTIONS (password {})",
            "CREATE USER MAPPING FOR a SERVER s OPTIONS (password {})",
            "ALTER ROLE r PASSWORD {}",
            "CREATE SUBSCRIPTION s CONNECTION {} PUBLICATION p",
            "SELECT {} -- x",
            "SELECT {}",
            "COPY t FROM {}",
            "DO {}",
            "SECURITY LABEL ON TABLE t IS {}",
            "SET a.b = {}",
            "PREPARE p AS SELECT {}",
            "EXPLAIN INSERT INTO t VALUES ({})",
        ]
    ),
    st.sampled_from(
        ["'{}'", "E'\\'{}'", "'''{}'", "$${}$$", "$a$'{}$a$", "'-- {}'", "E'x\\\\' \n '{}'"]
    ),
)
def test_no_secret_is_left(frame: str, literal: str) -> None:
    """A string's content is in no normalized text, in whatever statement and form."""
    found = classify(frame.format(literal.format(CANARY)))
    assert CANARY not in found.normalized
