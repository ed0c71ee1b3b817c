"""Identifiers.

Every identifier of ours is a ULID: 26 characters of Crockford's base 32, 48 bits of Unix
milliseconds and 80 random bits, so that ids sort by time. Time and randomness are arguments.
"""

import re
from typing import NewType

RunId = NewType("RunId", str)
SessionId = NewType("SessionId", str)
OperationId = NewType("OperationId", str)
LeaseId = NewType("LeaseId", str)
HostId = NewType("HostId", str)
LoopName = NewType("LoopName", str)
TargetName = NewType("TargetName", str)
RuleId = NewType("RuleId", str)  # "<loop>/<index>" of the policy, or "default-deny"
Tag = NewType("Tag", int)  # u64, random, never 0: the run's mark in task-local storage
CgroupId = NewType("CgroupId", int)  # u64: inode of the cgroup v2 directory

ULID_BYTES = 16
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)  # two letters: 10 bits
_SHIFTS = tuple(range(120, -1, -10))
_FIVE_BITS = bytes(ord(_ALPHABET[byte & 31]) for byte in range(256))
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")  # names of loops and targets


def ulid_time(unix_ms: int) -> str:
    """Return the first 10 characters of a ULID of this time.

    Raises:
        ValueError: the time does not fit 48 bits.
    """
    if not 0 <= unix_ms < 1 << 48:
        raise ValueError("a ULID takes a 48 bit time")
    return encode_ulid(unix_ms.to_bytes(6, "big") + bytes(10))[:10]


def ulid_randomness(drawn: bytes) -> str:
    """Return a character of five random bits for each byte; a ULID ends in 16 of them."""
    return drawn.translate(_FIVE_BITS).decode("ascii")


def encode_ulid(raw: bytes) -> str:
    """Return the text form of 16 bytes.

    Raises:
        ValueError: not 16 bytes.
    """
    if len(raw) != ULID_BYTES:
        raise ValueError("a ULID has 16 bytes")
    number = int.from_bytes(raw, "big")
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def decode_ulid(text: str) -> bytes:
    """Return the 16 bytes of a ULID's text form.

    Raises:
        ValueError: not a ULID in upper case.
    """
    if not _ULID.fullmatch(text):
        raise ValueError(f"not a ULID: {text[:40]!r}")
    number = 0
    for letter in text:
        number = number << 5 | _ALPHABET.index(letter)
    return number.to_bytes(ULID_BYTES, "big")
