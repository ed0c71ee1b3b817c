"""Text with placeholders instead of its literals."""

from collections.abc import Sequence

from agent.protocols.postgres.sql import library


def normalized(text: str, sql: bytes, kinds: Sequence[str]) -> str:
    """Return the text with `$n` for its literals."""
    return library.normalize(sql)
