"""Identifiers: ULIDs that sort by time and survive both directions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.ids import decode_ulid, encode_ulid, ulid_randomness, ulid_time


@given(st.binary(min_size=16, max_size=16))
def test_ulids_round_trip(raw: bytes) -> None:
    """Any 16 bytes survive the text form."""
    assert decode_ulid(encode_ulid(raw)) == raw


@given(
    st.integers(0, (1 << 48) - 1),
    st.integers(0, (1 << 48) - 1),
    st.binary(min_size=16, max_size=16),
)
def test_ulids_sort_by_time(one: int, other: int, randomness: bytes) -> None:
    """An earlier id sorts before a later one."""
    earlier, later = sorted((one, other))
    if earlier < later:
        assert ulid_time(earlier) + "Z" * 16 < ulid_time(later) + ulid_randomness(randomness)


@given(st.integers(0, (1 << 48) - 1), st.binary(min_size=16, max_size=16))
def test_a_ulid_holds_its_time_and_five_bits_of_each_byte(time: int, drawn: bytes) -> None:
    """Both parts are read back: no bit of the time and none of the five is lost."""
    raw = int.from_bytes(decode_ulid(ulid_time(time) + ulid_randomness(drawn)), "big")
    assert raw >> 80 == time
    assert [raw >> shift & 31 for shift in range(75, -1, -5)] == [byte & 31 for byte in drawn]


@pytest.mark.parametrize(
    "text",
    ["", "01", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "01jd0000000000000000000000", "I" * 26, "0" * 27],
)
def test_what_is_no_ulid_is_refused(text: str) -> None:
    """Wrong length, alphabet, case and overflow are refused."""
    with pytest.raises(ValueError, match="not a ULID"):
        decode_ulid(text)


@pytest.mark.parametrize("time", [-1, 1 << 48])
def test_a_ulid_takes_a_time_of_48_bits(time: int) -> None:
    """Time out of 48 bits is refused; the largest one fits."""
    assert ulid_time((1 << 48) - 1) == "7ZZZZZZZZZ"
    with pytest.raises(ValueError, match="ULID"):
        ulid_time(time)


@pytest.mark.parametrize("size", [15, 17])
def test_encoding_takes_sixteen_bytes(size: int) -> None:
    """Other sizes are refused."""
    with pytest.raises(ValueError, match="16 bytes"):
        encode_ulid(b"x" * size)
