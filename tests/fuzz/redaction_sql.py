"""Invariant: whatever text is before it, a literal behind a secret's name is cut out, and soon."""

import functools

from agent.model.redaction_sql import redact_sql
from tests.fuzz.engine import main
from tests.unit.spent import is_quick

CANARY = "c4n4ry-value-123"
CPU_S_MAX = 0.25
SHAPES = (
    f"ALTER ROLE a PASSWORD '{CANARY}'",
    f"create user a encrypted password /* x */ E'{CANARY}'",
    f"OPTIONS (user 'a', password '{CANARY}')",
    f"EXECUTE 'ALTER ROLE a PASSWORD ''{CANARY}'''",
    f"SELECT f(api_key => '{CANARY}')",
)
SEEDS = (
    b"SELECT 1; -- password 'x",
    b"ALTER ROLE a PASSWORD $x$ y $x$; SELECT 'it''s' || E'\\''",
    b"/* secret = ' */ password '' passphrase='''",
    b"SELECT dblink('host=x password=y user=z', 'postgres://u:p@h/d')",
    b"password password ( token auth_token := ::",
)


def check(data: bytes) -> None:
    """Put each shape behind the text, on a line of its own."""
    before = data.decode("utf-8", "replace")
    assert is_quick(functools.partial(_check, before), CPU_S_MAX * len(SHAPES))


def _check(before: str) -> None:
    for shape in SHAPES:
        assert CANARY not in redact_sql(f"{before}\n; {shape}"), shape


if __name__ == "__main__":
    main("redaction_sql")
