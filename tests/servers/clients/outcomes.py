"""A plugin for the drivers' own pytest: one line of JSON a test, in $OUTCOMES.

Copied to where the loop's user reads it, so it imports nothing of ours.
"""

import json
import os
from pathlib import Path
from typing import Any

_failed: dict[str, str] = {}
_passed: set[str] = set()
_skipped: dict[str, str] = {}
_took_s: dict[str, float] = {}


def pytest_runtest_logreport(report: Any) -> None:
    """Note one phase of a test, or one of its parts."""
    name = report.nodeid
    _took_s[name] = _took_s.get(name, 0.0) + report.duration
    if report.failed:
        lines = str(report.longrepr).splitlines()
        told = [line for line in lines if line.startswith("E  ")] or lines[-1:]
        _failed.setdefault(name, " ".join(told)[:300])
    elif report.skipped:
        _skipped[name] = str(report.longrepr)[-200:]
    elif report.when == "call":
        _passed.add(name)


def pytest_sessionfinish() -> None:
    """Write what became of each."""
    with Path(os.environ["OUTCOMES"]).open("w", encoding="utf-8") as out:
        for name, took_s in _took_s.items():
            became = "passed" if name in _passed else "skipped"
            told = _skipped.get(name, "")
            if name in _failed:
                became, told = "failed", _failed[name]
            out.write(json.dumps([name, became, round(took_s, 3), told]) + "\n")
