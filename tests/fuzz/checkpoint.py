"""Invariant: any bytes as a checkpoint's file are refused with words, or written back the same."""

from cryptography.hazmat.primitives.asymmetric import ec

from agent.spool.checkpoint import (
    CheckpointUnreadable,
    parse_checkpoint,
    serialize_checkpoint,
    sign,
)
from tests.fuzz.engine import main

KEY = ec.generate_private_key(ec.SECP256R1())
SIGNED = sign(KEY, "01JDZZZZZZZZZZZZZZZZZZZZZZ", 1_234, bytes(range(32)))
SEEDS = (
    serialize_checkpoint(SIGNED).encode(),
    serialize_checkpoint(SIGNED).replace("1234", str(1 << 63)).encode(),
    b"loopwarden checkpoint v1\nhost \nseq 0\nhash \nsignature \n",
)


def check(data: bytes) -> None:
    """Read it; what is readable is one canonical text, signed only if it is what was signed."""
    try:
        found = parse_checkpoint(data)
    except CheckpointUnreadable:
        return
    assert parse_checkpoint(serialize_checkpoint(found).encode()) == found
    same = (found.host_id, found.seq, found.hash) == (SIGNED.host_id, SIGNED.seq, SIGNED.hash)
    assert same or not found.is_signed_by(KEY.public_key())


if __name__ == "__main__":
    main("checkpoint")
