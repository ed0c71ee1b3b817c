"""The order in which a tree is shown."""

from dataclasses import replace

from agent.broker.control import ProcessView
from agent.cli.status import in_tree_order
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
