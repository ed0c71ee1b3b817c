"""Invariant: any bytes are dropped or get one answer, to that query and no longer than UDP's 512.

Only a name of the policy has an address in its answer.
"""

import ipaddress
import struct

from agent.proxy.dns import Names, answer
from tests.fuzz.engine import main

ANSWER_BYTES_MAX = 512  # RFC 1035 section 2.3.4
NAMES = Names.of([("api.example.com", "198.18.0.1", "fd4c:6f6f:7000::1"), ("a", "198.18.0.2", "")])
_ADDRESSES = tuple(
    ipaddress.ip_address(text).packed for pair in NAMES.addresses.values() for text in pair if text
)
_HEAD = bytes.fromhex("123401000001000000000000")
_API = b"\x03api\x07example\x03com\x00"
_OPT = bytes.fromhex("0000291000000080000000")
SEEDS = (
    _HEAD + _API + b"\0\x01\0\x01",
    _HEAD + _API + b"\0\x1c\0\x01",
    _HEAD[:-1] + b"\x01" + _API + b"\0\x01\0\x01" + _OPT,
    _HEAD + (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0\0\x01\0\xff",
    _HEAD + b"\x01A\0\0\x41\0\x01",
    _HEAD + b"\xc0\x0c\0\x01\0\x01",
    bytes.fromhex("123411000001000000000000"),
)


def check(data: bytes) -> None:
    """Answer it, and read the answer's parts that matter."""
    reply = answer(data, NAMES)
    if reply is None:
        return
    assert len(reply) <= ANSWER_BYTES_MAX
    identity, flags, questions, answers, authorities, others = struct.unpack_from("!6H", reply)
    assert identity == int.from_bytes(data[:2], "big")
    assert flags & 0x8000
    assert (questions, answers + authorities, others) in {(0, 0, 0), (1, 1, 0)}
    end = data.index(b"\0", 12) + 5 if questions else 12
    assert reply[12 : end - 2] == data[12 : end - 2], "name and type come back as asked"
    if answers:
        assert data[12 : end - 4].lower() in {_API, b"\x01a\0"}
        assert reply.endswith(_ADDRESSES)


if __name__ == "__main__":
    main("dns")
