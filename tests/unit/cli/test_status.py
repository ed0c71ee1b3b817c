"""The order in which a tree is shown."""

from dataclasses import replace

import pytest

from agent.broker.control import ProcessView, StatusView
from agent.cli.status import DAY_MS, WARN_BEFORE_DAYS, in_tree_order, warnings
from agent.ipc.messages import ReporterState
from agent.model.ids import RunId
from tests.unit.broker.harness import PROCESS


def _row(pid: int, parent: int, start_ns: int = 0) -> ProcessView:
    return ProcessView(RunId("r"), replace(PROCESS, pid=pid, start_ns=start_ns or pid), parent)


def test_children_stand_below_their_parents() -> None:
    """In the order of starting; orphans at the top."""
    rows = [_row(5, 3), _row(3, 2), _row(4, 2), _row(2, 1), _row(9, 777)]
    shown = [(depth, row.process.pid) for depth, row in in_tree_order(rows)]
    assert shown == [(0, 2), (1, 3), (2, 5), (1, 4), (0, 9)]


def test_an_empty_tree_is_empty() -> None:
    """No failure."""
    assert in_tree_order([]) == []


def _view(ends_ms: int) -> StatusView:
    state = ReporterState(True, "", 0, 1, 0, 0, "collector:1", True, ends_ms)
    return StatusView("1", "i", True, "", "r", 0, "", 0, 0, 0, 0, 0, (), state, (), {}, 0)


@pytest.mark.parametrize(
    ("left_ms", "said"),
    [
        (WARN_BEFORE_DAYS * DAY_MS + 1, ""),
        (WARN_BEFORE_DAYS * DAY_MS, "ends 2026-"),
        (1, "ends 2026-"),
        (0, "ENDED 2026-"),
        (-DAY_MS, "ENDED 2026-"),
    ],
)
def test_an_identity_that_ends_is_told_thirty_days_before(left_ms: int, said: str) -> None:
    """With when, and what to do; a host without a collector has none that could end."""
    now_ms = 1_780_000_000_000
    found = warnings(_view(now_ms + left_ms), now_ms)
    assert bool(found) is bool(said)
    assert all(said in line and "enroll" in line for line in found)
    assert warnings(_view(0), now_ms) == []
