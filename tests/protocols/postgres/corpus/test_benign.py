"""Harmless statements of drivers, frameworks and programs: none is seen as more than it is."""

import pytest

from agent.model.sql import Effect
from agent.protocols.postgres.sql import classify
from agent.protocols.postgres.transitions import as_heard
from tests.protocols.postgres.corpus.reading import benign, danger

COUNT_MIN = 500
NEWEST = 18  # some use what only the newest server has words for


@pytest.mark.parametrize(("origin", "text"), benign())
def test_a_benign_statement(origin: str, text: str) -> None:
    """Each is a read or of this session, and touches no pinned setting."""
    found = as_heard(classify(text), NEWEST)
    if any(each.kind == "EXECUTE" for each in found.statements):
        # what it runs was classified when it was prepared, which stands before it
        (statement,) = found.statements
        made = [each for _, other in benign() for each in classify(other).statements]
        assert statement.effects == {Effect.UNKNOWN}
        assert not statement.calls
        assert any(each.kind == "PREPARE" and each.prepared == statement.prepared for each in made)
        return
    assert danger(found) in {"", "%"}  # read-write is harmless where the target is not read-only
    assert all(each.kind for each in found.statements)


def test_there_are_enough() -> None:
    """The corpus has at least 500 statements, each once."""
    texts = [text for _, text in benign()]
    assert len(set(texts)) == len(texts) >= COUNT_MIN
