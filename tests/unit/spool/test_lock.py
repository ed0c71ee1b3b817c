"""One writer a spool."""

import os
from pathlib import Path

import pytest

from agent.spool.lock import SpoolBusy, lock


def test_a_spool_has_one_writer(tmp_path: Path) -> None:
    """A second one is refused until the first is gone."""
    fd = lock(tmp_path / "spool")
    with pytest.raises(SpoolBusy):
        lock(tmp_path / "spool")
    os.close(fd)
    os.close(lock(tmp_path / "spool"))
