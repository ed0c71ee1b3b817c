"""When text has colours."""

import os
from pathlib import Path

import pytest

from agent.cli.collector_text import paint_for


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),  # no-color.org: an empty one says nothing
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": "0"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By TERM and NO_COLOR; what is no terminal never has any."""
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    manager, terminal = os.openpty()
    with open(manager, "rb"), open(terminal, "w", encoding="utf-8") as stream:
        assert paint_for(stream).enabled is coloured
    with (tmp_path / "file").open("w", encoding="utf-8") as stream:
        assert paint_for(stream)("text", "red") == "text"
