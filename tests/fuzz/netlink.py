"""Invariant: any answer of netlink is read to an end: whole messages, or a number of an error."""

import struct

from agent.kernel.netlink import HEADER, NLM_F_MULTI, NLMSG_DONE, NLMSG_ERROR, Message, request
from agent.kernel.netlink import _read as read
from agent.kernel.nft import _attribute as attribute
from tests.fuzz.engine import main

_CHAIN = bytes(4) + struct.pack("=HH4sHH4s", 7, 1, b"lw\0", 8, 3, b"in\0")
SEEDS = (
    request(NLMSG_ERROR, 0, bytes(4)),
    request(NLMSG_ERROR, 0, struct.pack("=i", -1) + bytes(16)),
    request(0xA03, NLM_F_MULTI, _CHAIN) * 3 + request(NLMSG_DONE, NLM_F_MULTI, bytes(4)),
    request(0xA03, 0, _CHAIN, 2),
    request(NLMSG_DONE, NLM_F_MULTI, struct.pack("=i", -2)),
    bytes(64),
)


def check(data: bytes) -> None:
    """Read the answer, and the attributes of what is in it."""
    answers: list[Message] = []
    _, number = read(data, 1, answers)
    assert number >= 0
    assert sum(HEADER.size + len(one.payload) for one in answers) <= len(data)
    for one in answers:
        for kind in (1, 3):
            found = attribute(one.payload, kind)
            assert found is None or found in one.payload


if __name__ == "__main__":
    main("netlink")
