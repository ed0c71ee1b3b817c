"""Audit events survive the way to the reporter, and nothing else passes for one."""

import msgspec
import pytest

from agent.ipc.records import KINDS, pack_event, unpack_event
from agent.model import audit
from agent.model.flow import Attribution, Endpoint, Evidence, Process, Tier
from agent.model.ids import CgroupId, LoopName, RunId, SessionId, Tag, TargetName

PROCESS = Process(7, 1, 1000, "curl", "/usr/bin/curl", ("curl", "x"), False)
OPENED = audit.SessionOpened(
    Attribution(
        SessionId("s"),
        RunId("r"),
        Tag(1 << 63),
        CgroupId(9),
        Evidence.TAG_AND_CGROUP,
        Tier.LAUNCHED,
        Endpoint("198.18.0.1", 443),
        1,
        2,
        3,
        PROCESS,
        (PROCESS, PROCESS),
    ),
    LoopName("nightly"),
    TargetName("api"),
)


def test_events_round_trip() -> None:
    """A deep event arrives equal."""
    kind, body = pack_event(OPENED)
    assert unpack_event(kind, body) == OPENED


def test_every_member_of_the_union_is_known() -> None:
    """The table and the union can't drift apart."""
    assert set(KINDS.values()) == set(audit.AuditEvent.__args__)


@pytest.mark.parametrize("kind", ["SessionOpened", "Nothing", ""])
def test_foreign_bodies_are_refused(kind: str) -> None:
    """Unknown kinds and bodies of another kind raise ValueError."""
    with pytest.raises(ValueError, match=r"unknown kind|is not a"):
        unpack_event(kind, msgspec.Raw(msgspec.msgpack.encode({"x": 1})))
