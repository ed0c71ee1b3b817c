"""What long text is spared the parser."""

import pytest

from agent.protocols.postgres.sql.nesting import (
    COMBINED_MAX,
    COMMENTS_MAX,
    SAFE_BYTES,
    TOKENS_MAX,
    too_deep,
)


def test_short_text_is_left_to_the_parser() -> None:
    """Text of SAFE_BYTES can't nest so deep that it matters."""
    text = "SELECT " + "+" * (SAFE_BYTES - 7)
    assert len(text) == SAFE_BYTES
    assert not too_deep(text)
    assert too_deep(text + "+")


def test_chains_of_tokens() -> None:
    """TOKENS_MAX tokens without a comma pass; one more does not."""
    padding = f"/*{'x' * SAFE_BYTES}*/"
    assert not too_deep(padding + "+" * TOKENS_MAX)
    assert too_deep(padding + "+" * (TOKENS_MAX + 1))
    assert too_deep(padding + "(1,1)+" * (TOKENS_MAX + 1))
    assert not too_deep(padding + "(1,1)," * (TOKENS_MAX + 1))
    assert not too_deep(padding + "a = 1 OR " * TOKENS_MAX)
    assert not too_deep(padding + "a = 1 AND " * TOKENS_MAX)
    assert too_deep(padding + "a BETWEEN 1 AND 1 " * TOKENS_MAX)


def test_joins_and_unions() -> None:
    """COMBINED_MAX of them pass, commas or not; one more does not."""
    padding = f"/*{'x' * SAFE_BYTES}*/"
    assert not too_deep(padding + "SELECT 1,2 UNION " * COMBINED_MAX)
    assert too_deep(padding + "SELECT 1,2 UNION " * (COMBINED_MAX + 1))


def test_comments() -> None:
    """COMMENTS_MAX openings of comments pass; one more does not, in short text too."""
    assert not too_deep("/*" * COMMENTS_MAX)
    assert too_deep("/*" * (COMMENTS_MAX + 1))


@pytest.mark.parametrize(
    "text", ["'" * 200_001, "$a$" * 60_001, "E'\\" * 70_000, "/*" + "*/" * 90_000, "\n--" * 70_000]
)
def test_any_text_takes_linear_time(text: str) -> None:
    """Nothing that is left open makes the look expensive."""
    assert too_deep(text) in {True, False}
