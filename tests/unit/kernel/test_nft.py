"""The nftables messages: what is asked for is in the bytes; answers are read within their ends."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel import nft
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
    steps = [encoded(step, number) for number, step in enumerate(nft._rule_steps(WANTED), 2)]
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


def test_a_frame_has_its_header() -> None:
    """Length, subsystem and type, flags and number, and the inet family."""
    steps = nft._chain_steps(WANTED) + nft._empty_steps(WANTED) + nft._rule_steps(WANTED)
    for number, step in enumerate(steps, 2):
        frame = encoded(step, number)
        size, kind, flags, sequence, _ = HEADER.unpack_from(frame)
        assert (size, kind, sequence) == (len(frame), 10 << 8 | step[1], number)
        assert flags == step[2] | 1
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
