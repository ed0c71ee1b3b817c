"""Identifiers: ULIDs that sort by time and survive both directions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.ids import decode_ulid, encode_ulid, new_ulid


@given(st.binary(min_size=16, max_size=16))
def test_ulids_round_trip(raw: bytes) -> None:
    """Any 16 bytes survive the text form."""
    assert decode_ulid(encode_ulid(raw)) == raw


@given(
    st.integers(0, (1 << 48) - 1),
    st.integers(0, (1 << 48) - 1),
    st.binary(min_size=10, max_size=10),
)
def test_ulids_sort_by_time(one: int, other: int, randomness: bytes) -> None:
    """An earlier id sorts before a later one."""
    earlier, later = sorted((one, other))
    if earlier < later:
        assert new_ulid(earlier, b"\xff" * 10) < new_ulid(later, randomness)


@pytest.mark.parametrize(
    "text",
    ["", "01", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "01jd0000000000000000000000", "I" * 26, "0" * 27],
)
def test_what_is_no_ulid_is_refused(text: str) -> None:
    """Wrong length, alphabet, case and overflow are refused."""
    with pytest.raises(ValueError, match="not a ULID"):
        decode_ulid(text)


@pytest.mark.parametrize(("time", "random"), [(-1, 10), (1 << 48, 10), (0, 9), (0, 11)])
def test_a_ulid_takes_its_exact_parts(time: int, random: int) -> None:
    """Time out of 48 bits and other than 10 random bytes are refused."""
    with pytest.raises(ValueError, match="ULID"):
        new_ulid(time, b"x" * random)


@pytest.mark.parametrize("size", [15, 17])
def test_encoding_takes_sixteen_bytes(size: int) -> None:
    """Other sizes are refused."""
    with pytest.raises(ValueError, match="16 bytes"):
        encode_ulid(b"x" * size)
