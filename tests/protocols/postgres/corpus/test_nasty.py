"""Dangerous statements: none is seen as less than it is, however it is written."""

import pytest

from agent.protocols.postgres.sql import classify
from tests.protocols.postgres.corpus.reading import danger, nasty, variants

COUNT_MIN = 400


def _sorted(expected: str) -> str:
    letters = "".join(sorted(filter(str.isalpha, expected)))
    return letters + "".join(mark for mark in expected if not mark.isalpha())


@pytest.mark.parametrize(("expected", "text"), nasty())
def test_a_nasty_statement(expected: str, text: str) -> None:
    """Each has exactly the dangers that the corpus says."""
    assert danger(classify(text)) == _sorted(expected)


@pytest.mark.parametrize(("expected", "text"), nasty())
def test_variants_are_no_way_around(expected: str, text: str) -> None:
    """White space, comments, case and neighbours hide nothing."""
    wanted = _sorted(expected)
    for variant in variants(text):
        found = danger(classify(variant))
        # next to an unterminated string, a neighbour's text is part of it: unknown all the same
        assert found == wanted, variant


def test_there_are_enough() -> None:
    """The corpus has at least 400 statements, each once."""
    texts = [text for _, text in nasty()]
    assert len(set(texts)) == len(texts) >= COUNT_MIN
