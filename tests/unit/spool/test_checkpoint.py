"""Signed heads: what a signature covers, and what is read as a checkpoint."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from agent.spool.checkpoint import (
    FILE_BYTES_MAX,
    HOST_ID_BYTES_MAX,
    SEQ_MAX,
    Checkpoint,
    CheckpointUnreadable,
    parse_checkpoint,
    read_checkpoint,
    serialize_checkpoint,
    sign,
    statement_of,
    write_checkpoint,
)

KEY = ec.generate_private_key(ec.SECP256R1())
DIGEST = bytes(range(32))
SIGNED = sign(KEY, "HOST1", 7, DIGEST)


def test_the_key_that_signed_is_the_one_that_verifies() -> None:
    """The collector's key says yes, any other key no."""
    assert SIGNED.is_signed_by(KEY.public_key())
    assert not SIGNED.is_signed_by(ec.generate_private_key(ec.SECP256R1()).public_key())


@pytest.mark.parametrize(
    "other",
    [
        Checkpoint("HOST2", 7, DIGEST, SIGNED.signature),
        Checkpoint("HOST1", 8, DIGEST, SIGNED.signature),
        Checkpoint("HOST1", 7, bytes(32), SIGNED.signature),
        Checkpoint("HOST1", 7, DIGEST, b""),
        Checkpoint("HOST1", 7, DIGEST, SIGNED.signature[:-1]),
        Checkpoint("", 7, DIGEST, SIGNED.signature),
        Checkpoint("HOST1", -1, DIGEST, SIGNED.signature),
        Checkpoint("HOST1", 7, DIGEST[:31], SIGNED.signature),
    ],
)
def test_a_signature_is_of_one_host_number_and_hash(other: Checkpoint) -> None:
    """Moved to another host, number or hash, cut, or absent: it is no signature."""
    assert not other.is_signed_by(KEY.public_key())


@given(
    st.lists(
        st.tuples(
            st.text("AB", min_size=1, max_size=4), st.integers(0, SEQ_MAX), st.binary(max_size=40)
        ),
        min_size=2,
        max_size=2,
        unique=True,
    )
)
def test_no_two_heads_have_the_same_statement(heads: list[tuple[str, int, bytes]]) -> None:
    """The signed bytes say host, number and hash unambiguously, and begin as no certificate."""
    statements = [statement_of(name, seq, tail.ljust(32, b"\1")[:32]) for name, seq, tail in heads]
    same = len({(name, seq, tail.ljust(32, b"\1")[:32]) for name, seq, tail in heads}) == 1
    assert (statements[0] == statements[1]) is same
    assert all(one[0] != 0x30 for one in statements)  # a DER sequence, as a certificate is


def test_values_at_their_limits() -> None:
    """The longest host id and the highest number are signed, one past them is not."""
    name = "H" * HOST_ID_BYTES_MAX
    at_limit = sign(KEY, name, SEQ_MAX, DIGEST)
    assert parse_checkpoint(serialize_checkpoint(at_limit).encode()) == at_limit
    for host_id, seq in ((name + "H", 1), ("", 1), (name, SEQ_MAX + 1), (name, -1)):
        with pytest.raises(ValueError, match="not a host's id"):
            statement_of(host_id, seq, DIGEST)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    """Written, then read; and no file is no checkpoint."""
    assert read_checkpoint(tmp_path / "checkpoint") is None
    write_checkpoint(tmp_path / "checkpoint", SIGNED)
    assert read_checkpoint(tmp_path / "checkpoint") == SIGNED
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@given(st.binary(max_size=FILE_BYTES_MAX + 1))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    """Whatever a file holds, it is a checkpoint or it is refused, with one error."""
    with pytest.raises(CheckpointUnreadable):
        parse_checkpoint(data)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_not_signed(at: int, byte: int) -> None:
    """Any one byte changed: not readable, not signed, or the same checkpoint."""
    data = bytearray(serialize_checkpoint(SIGNED).encode())
    data[at % len(data)] = byte
    try:
        read = parse_checkpoint(bytes(data))
    except CheckpointUnreadable:
        return
    if (read.host_id, read.seq, read.hash) != (SIGNED.host_id, SIGNED.seq, SIGNED.hash):
        assert not read.is_signed_by(KEY.public_key())


@pytest.mark.parametrize("add", [0, 1])
def test_the_size_of_a_file_is_bounded(add: int) -> None:
    """Over FILE_BYTES_MAX nothing is looked at; a number past SEQ_MAX is none."""
    with pytest.raises(CheckpointUnreadable):
        parse_checkpoint(serialize_checkpoint(SIGNED).encode().ljust(FILE_BYTES_MAX + add, b"\n"))
    text = serialize_checkpoint(SIGNED)
    with pytest.raises(CheckpointUnreadable):
        parse_checkpoint(text.replace("seq 7", f"seq {SEQ_MAX + 1}").encode())
    assert parse_checkpoint(text.replace("seq 7", f"seq {SEQ_MAX}").encode()).seq == SEQ_MAX
