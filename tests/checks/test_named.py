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


def _defines(path: str, name: str) -> bool:
    file = ROOT / path
    if not file.is_file():
        return False
    text = file.read_text(encoding="utf-8")
    return re.search(rf"^(?:def|class) {name}\b", text, re.MULTILINE) is not None
