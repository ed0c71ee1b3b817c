"""Tests that a document names as proof exist under that name."""

import re

from tests.checks.tree import ROOT

NAMED = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(\w+)`")


def test_named_tests_exist() -> None:
    """Every `path::name` of tests/README.md is a test, or a class of tests, in that file."""
    named = NAMED.findall((ROOT / "tests" / "README.md").read_text(encoding="utf-8"))
    assert named
    missing = [f"{path}::{name}" for path, name in named if not _defines(path, name)]
    assert not missing


def test_each_requirement_has_a_row() -> None:
    """R1 to R40, each once; and each has a test, but for approvals, which are later."""
    text = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (R\d+) \| .*? \| (.*) \|$", text, re.MULTILINE)
    assert [name for name, _ in rows] == [f"R{number}" for number in range(1, 41)]
    assert [name for name, shown in rows if not NAMED.search(shown)] == ["R24"]


def test_ways_that_are_open_are_told() -> None:
    """R40: README says what is not defended: the ways past both locks, and why they are open."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    told = text[text.index("### What it does not defend against") : text.index("## Limits")]
    ways = (
        "pidfd_getfd", "a connected socket that an outsider passes in", "packet sockets", "vsock",
        "io_uring", "unix socket (docker, systemd, D-Bus)", "nscd", "Host root with capabilities",
        "a cron job or a unit is outside",
    )  # fmt: skip
    assert [way for way in ways if way not in told.replace("\n  ", " ")] == []


def _defines(path: str, name: str) -> bool:
    file = ROOT / path
    if not file.is_file():
        return False
    text = file.read_text(encoding="utf-8")
    return re.search(rf"^(?:def|class) {name}\b", text, re.MULTILINE) is not None
