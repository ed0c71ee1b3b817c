"""The suite's parts together are the suite."""

from collections import Counter
from pathlib import Path

from tests.checks.suite import TESTS, parts


def test_each_test_is_in_one_part() -> None:
    """No file of tests is left out, and none runs twice."""
    found = Counter[Path]()
    for part in parts():
        for name in part:
            path = TESTS.parent / name
            found.update([path] if path.is_file() else path.rglob("test_*.py"))
    assert found == Counter(TESTS.rglob("test_*.py"))
