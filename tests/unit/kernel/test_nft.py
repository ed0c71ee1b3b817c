"""The nftables messages: what is asked for is in the bytes; answers are read within their ends."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel import nft, nft_timeouts
from agent.kernel.netlink import HEADER, Message

WANTED = nft.Ruleset("lw", 0x4C700000, 15_001, (nft.Fence(0x1122334455667788, 3),))


def nla(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def encoded(step: nft.Step, number: int) -> bytes:
    message, kind, flags, attrs = step
    return nft._encode(message, kind, flags, number, attrs)


def test_rules_have_mark_port_and_fences() -> None:
    """One redirect by mark to the port; per family a fence of the mark and one of each cgroup."""
    plain = nft._rule_steps(WANTED, timed=False)
    steps = [encoded(step, number) for number, step in enumerate(plain, 2)]
    redirect, *fences = steps
    assert nft._text(redirect[HEADER.size :], 2) == nft.REDIRECT_CHAIN
    assert struct.pack("!H", 15_001) in redirect
    assert struct.pack("=I", 0x4C700000) in redirect
    assert len(fences) == 4
    for frame in fences:
        assert nft._text(frame[HEADER.size :], 2) == nft.FENCE_CHAIN
        assert b"reject\0" in frame
    cgroup = struct.pack("=Q", 0x1122334455667788)
    assert [cgroup in frame for frame in fences] == [False, True, False, True]
    level = nla(3, struct.pack("!I", 3))  # NFTA_SOCKET_LEVEL
    assert [level in frame for frame in fences] == [False, True, False, True]


def test_marked_flows_and_those_of_each_cgroup_get_the_times() -> None:
    """In the chain that meets first packets; the fences are the same as without."""
    plain, timed = (
        [encoded(step, 2) for step in nft._rule_steps(WANTED, timed=timed)]
        for timed in (False, True)
    )
    objref = nla(1, struct.pack("!I", 7)) + nla(2, nft_timeouts.TIMES.encode() + b"\0")
    marked, own, *fences = timed
    assert fences == plain[1:]
    for frame in (marked, own):
        assert nft._text(frame[HEADER.size :], 2) == nft.REDIRECT_CHAIN
        assert objref in frame
    assert marked.index(objref) < marked.index(b"redir\0")
    assert struct.pack("=Q", 0x1122334455667788) in own
    assert b"redir\0" not in own


def test_the_times_are_of_ended_and_of_new_connections_only() -> None:
    """TCP of both families; established and half-closed ones keep the host's numbers."""
    [step] = nft._object_steps(WANTED)
    frame = encoded(step, 2)
    times = b"".join(nla(kind, struct.pack("!I", s)) for kind, s in ((1, 5), (7, 2), (8, 2)))
    data = nla(2, b"\x06") + nla(3, times)
    assert nft._attribute(frame[HEADER.size :], 4) == data
    assert nft._attribute(frame[HEADER.size :], 3) == struct.pack("!I", 7)
    assert nft._text(frame[HEADER.size :], 2) == nft_timeouts.TIMES


def test_a_frame_has_its_header() -> None:
    """Length, subsystem and type, flags and number, and the inet family."""
    steps = nft._replacing(WANTED, True) + nft._empty_steps(WANTED)
    for number, step in enumerate(steps, 2):
        frame = encoded(step, number)
        size, kind, flags, sequence, _ = HEADER.unpack_from(frame)
        assert (size, kind, sequence) == (len(frame), 10 << 8 | step[1], number)
        assert flags == step[2] | 1
        assert step[1] in {0, 2, 3, 6, 8, 18}  # of tables, chains, rules, and one object
        assert frame[HEADER.size] == 1
        assert nft._text(frame[HEADER.size :], 1) == "lw"


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b"", None),
        (bytes(4), None),
        (bytes(4) + nla(1, b"lw\0") + nla(3, b"in\0"), b"in\0"),
        (bytes(4) + nla(0x8003, b"nested"), b"nested"),  # the flag of nesting is no part of it
        (bytes(4) + nla(1, b"lw\0"), None),
        (bytes(4) + struct.pack("=HH", 0, 1) + nla(3, b"in\0"), None),  # would never end
        (bytes(4) + struct.pack("=HH", 400, 1) + nla(3, b"in\0"), None),
    ],
)
def test_an_attribute_is_found_or_not(payload: bytes, found: bytes | None) -> None:
    """By number, behind nfgenmsg's 4 bytes; a broken length ends the search."""
    assert nft._attribute(payload, 3) == found


@given(st.binary(max_size=100), st.integers(0, 40))
def test_any_payload_is_searched(payload: bytes, number: int) -> None:
    """Nothing raises, and text is text."""
    found = nft._attribute(payload, number)
    assert found is None or found in payload
    assert isinstance(nft._text(payload, number), str)


@pytest.mark.parametrize(
    "answers", [[], [Message(0xA0F, b"")], [Message(0xA0F, bytes(4) + nla(1, b"\0"))]]
)
def test_an_answer_without_a_generation_is_an_error(answers: list[Message]) -> None:
    """It is never taken for generation 0: the guard would believe that nothing has changed."""
    with pytest.raises(OSError, match="generation") as caught:
        nft.parse_generation(answers)
    assert caught.value.errno == errno.EBADMSG


def test_the_generation_is_read() -> None:
    """It is 4 bytes in network order."""
    assert nft.parse_generation([Message(0xA0F, bytes(4) + nla(1, b"\0\0\1\2"))]) == 258
