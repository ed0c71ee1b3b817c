"""What is left behind is told, and what is only on its way out is not."""

import pytest

from tests.checks import machine
from tests.checks.machine import kernel_objects, left_behind


def test_what_goes_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interface that the kernel takes down a little later was not left by a test."""
    seen = [frozenset({"a", "b", "c"}), frozenset({"a", "c"}), frozenset({"a"})]
    monkeypatch.setattr(machine, "kernel_objects", lambda: seen.pop(0))
    assert left_behind(frozenset({"a"})) == []
    assert seen == []


def test_what_stays_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, when its time is over."""
    monkeypatch.setattr(machine, "GONE_WITHIN_S", 0.0)
    monkeypatch.setattr(machine, "kernel_objects", lambda: frozenset({"b", "a", "c"}))
    assert left_behind(frozenset({"a"})) == ["b", "c"]


def test_what_there_is_has_a_name() -> None:
    """This machine's loopback interface, at least."""
    assert "interface lo" in kernel_objects()
