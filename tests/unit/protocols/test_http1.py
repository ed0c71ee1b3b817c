"""Protocols are found by their folders."""

from agent.protocols import discover
from agent.protocols.http1 import SPEC


def test_every_folder_is_found() -> None:
    """Each folder's SPEC is found under its own name; http is one of them."""
    found = discover()
    assert found["http"] is SPEC
    assert all(spec.name == name for name, spec in found.items())
