"""Netlink's messages: written as rtnetlink has them, read to an end whatever comes."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel import netlink
from agent.kernel.netlink import (
    DUMP_TRIES,
    HEADER,
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_MULTI,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    Message,
    _read,
    dump,
    exchange,
    request,
)

NEW = 0xA03
ACK = request(NLMSG_ERROR, 0, bytes(4))


def read(data: bytes, last: int = 1) -> tuple[bool, int, list[Message]]:
    """Return whether it is the end, the error's number, and the answers."""
    answers: list[Message] = []
    done, number = _read(data, last, answers)
    return done, number, answers


def test_a_request_has_its_header() -> None:
    """Length with header, type, flags, sequence, and no port: the kernel fills that in."""
    frame = request(0x1234, NLM_F_REQUEST | NLM_F_ACK, b"abcd", 7)
    assert HEADER.unpack_from(frame) == (20, 0x1234, 5, 7, 0)
    assert frame[16:] == b"abcd"


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"", (False, 0)),
        (ACK, (True, 0)),
        (request(NLMSG_ERROR, 0, bytes(4), 2), (False, 0)),  # of another message
        (request(NLMSG_ERROR, 0, struct.pack("=i", -errno.EPERM), 2), (True, errno.EPERM)),
        (request(NLMSG_DONE, NLM_F_MULTI, bytes(4)), (True, 0)),
        (request(NLMSG_DONE, NLM_F_MULTI, struct.pack("=i", -2)), (True, errno.ENOENT)),
        (request(NLMSG_ERROR, 0, b"\0\0\0"), (True, errno.EBADMSG)),
        (request(NLMSG_ERROR, 0, struct.pack("=i", 1)), (True, errno.EBADMSG)),
        (request(NEW, NLM_F_MULTI | NLM_F_DUMP_INTR, b"x"), (True, errno.EINTR)),
        (request(NLMSG_DONE, NLM_F_MULTI | NLM_F_DUMP_INTR, bytes(4)), (True, errno.EINTR)),
        (bytes(16), (True, errno.EBADMSG)),  # a length of 0 would never end
        (HEADER.pack(15, NEW, 0, 1, 0), (True, errno.EBADMSG)),
        (HEADER.pack(17, NEW, 0, 1, 0), (True, errno.EBADMSG)),  # longer than what came
    ],
)
def test_an_answer_ends_or_goes_on(data: bytes, end: tuple[bool, int]) -> None:
    """An acknowledgement of the last, the end of a dump, an error, or what is no message."""
    assert read(data)[:2] == end


def test_answers_are_gathered_until_the_end() -> None:
    """Parts of a dump go on, padded to 4 bytes; a single answer to the last message ends."""
    part = request(NEW, NLM_F_MULTI, b"abcde") + bytes(3)
    assert read(part * 2) == (False, 0, [Message(NEW, b"abcde")] * 2)
    assert read(part + request(NLMSG_DONE, NLM_F_MULTI, bytes(4)))[0]
    assert read(request(NEW, 0, b"x")) == (True, 0, [Message(NEW, b"x")])
    assert not read(request(NEW, 0, b"x"), last=2)[0]


@given(st.binary(max_size=200))
def test_any_bytes_come_to_an_end(data: bytes) -> None:
    """Nothing raises, and no error is a negative number."""
    _, number, answers = read(data)
    assert number >= 0
    assert sum(HEADER.size + len(one.payload) for one in answers) <= len(data)


def test_the_kernel_answers() -> None:
    """A dump of links has the loopback's; an unknown type is the kernel's error."""
    links = request(18, NLM_F_REQUEST | NLM_F_DUMP, bytes(16))
    assert any(b"lo\0" in one.payload for one in dump(NETLINK_ROUTE, links))
    with pytest.raises(OSError) as caught:
        exchange(NETLINK_ROUTE, request(0x7FF0, NLM_F_REQUEST | NLM_F_ACK, bytes(16)), 1)
    assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize("interrupted", [0, DUMP_TRIES - 1, DUMP_TRIES])
def test_a_dump_that_was_interrupted_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, interrupted: int
) -> None:
    """What changed meanwhile may have hidden what did not: asked again, up to DUMP_TRIES."""
    asked: list[bytes] = []

    def answer(family: int, messages: bytes, last: int) -> list[Message]:
        assert (family, last) == (NETLINK_ROUTE, 1)
        asked.append(messages)
        if len(asked) <= interrupted:
            raise OSError(errno.EINTR, "interrupted")
        return [Message(NEW, b"one")]

    monkeypatch.setattr(netlink, "exchange", answer)
    if interrupted == DUMP_TRIES:
        with pytest.raises(InterruptedError):
            dump(NETLINK_ROUTE, b"list")
    else:
        assert dump(NETLINK_ROUTE, b"list") == [Message(NEW, b"one")]
    assert asked == [b"list"] * min(interrupted + 1, DUMP_TRIES)
