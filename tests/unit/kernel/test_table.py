"""Listings to the broker come in pages that fit a frame."""

import msgspec
import pytest

from agent.ipc.messages import FRAME_BYTES_MAX, Runs
from agent.kernel.table import PAGE_BYTES, _fitting
from agent.model.flow import Tier
from agent.model.ids import CgroupId, LoopName, RunId, Tag
from agent.model.loop import Initiator, Run


def run(number: int, argv_bytes: int) -> Run:
    """Return a run whose command is so long."""
    who = Initiator(0, "root", 1, "/usr/bin/loopwarden", "", "/")
    return Run(
        RunId(f"{number:026}"), LoopName("job"), Tag(1), CgroupId(1), "/x", Tier.LAUNCHED,
        False, who, ("a" * argv_bytes,), 0,
    )  # fmt: skip


@pytest.mark.parametrize("argv_bytes", [10, 1_000, 4_000, PAGE_BYTES + 1])
def test_a_page_fits_a_frame_and_pages_cover_all(argv_bytes: int) -> None:
    """However long the commands are, each page is a frame, none is empty, none is missed."""
    left = [run(number, argv_bytes) for number in range(300)]
    seen = 0
    while left:
        fits = _fitting(left)
        assert fits
        frame = (1, True, Runs(tuple(left[:fits]), more=fits < len(left)))
        assert len(msgspec.msgpack.encode(frame)) <= FRAME_BYTES_MAX
        seen += fits
        left = left[fits:]
    assert seen == 300
