"""A text is shown without its secrets, however long it is."""

import pytest

from agent.model.sql import Classified, unknown
from agent.protocols.postgres.recording import TEXT_BYTES_MAX, prepare


@pytest.mark.parametrize("padding", [0, TEXT_BYTES_MAX - 1_100, TEXT_BYTES_MAX, 3 * TEXT_BYTES_MAX])
def test_the_literal_of_a_password_is_never_shown(padding: int) -> None:
    """Wherever it stands: in the head, across a cut, in the tail."""
    classified: Classified = unknown("")
    text = f"/*{'x' * padding}*/ ALTER ROLE a PASSWORD '{'hunter2' * 200}'; SELECT 1"
    prepared = prepare(text, classified, classified.statements)
    assert prepared.text == text
    assert "hunter2" not in prepared.shown
