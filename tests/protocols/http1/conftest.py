"""After each test no body is counted as held."""

from collections.abc import Iterator

import pytest

from agent.protocols.http1.held import HELD
from tests.conformance.conductor import RUN_KEY


@pytest.fixture(autouse=True)
def _nothing_held() -> Iterator[None]:
    """Whatever ended a conversation, what it held was given back."""
    yield
    assert HELD.of(RUN_KEY) == 0
