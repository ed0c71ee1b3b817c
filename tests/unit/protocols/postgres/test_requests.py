"""The loop's messages are read strictly, or refused; never anything between."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocols.postgres import requests
from agent.protocols.postgres.frames import Malformed
from agent.protocols.postgres.requests import NAME_BYTES, Bind, Execute, Named, Parse

READERS: tuple[Callable[[bytes], object], ...] = (
    requests.parse_query,
    requests.parse_parse,
    requests.parse_bind,
    requests.parse_named,
    requests.parse_execute,
    requests.parse_function_call,
    requests.parse_copy_fail,
    requests.parse_empty,
)
text = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)
value = st.none() | st.binary(max_size=20)


def _value(data: bytes | None) -> bytes:
    return b"\xff\xff\xff\xff" if data is None else len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("read", READERS)
@given(payload=st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(read: Callable[[bytes], object], payload: bytes) -> None:
    """No other exception than Malformed, whatever the bytes are."""
    with contextlib.suppress(Malformed):
        read(payload)


@given(text, text, st.lists(st.integers(0, 1), max_size=4), st.lists(value, max_size=6))
def test_a_bind_is_read_as_it_was_made(
    portal: str, statement: str, formats: list[int], values: list[bytes | None]
) -> None:
    """Names, formats and values come out; one byte more or less is refused."""
    body = portal.encode() + b"\0" + statement.encode() + b"\0"
    body += len(formats).to_bytes(2, "big")
    body += b"".join(code.to_bytes(2, "big") for code in formats)
    body += len(values).to_bytes(2, "big") + b"".join(map(_value, values)) + bytes(2)
    assert requests.parse_bind(body) == Bind(
        portal.encode()[:NAME_BYTES], statement.encode()[:NAME_BYTES], tuple(formats), tuple(values)
    )
    for wrong in (body + b"\0", body[:-1]):
        with pytest.raises(Malformed):
            requests.parse_bind(wrong)


def test_counts_are_unsigned() -> None:
    """65 535 values are as many as a Bind can have; servers read the count without a sign."""
    body = b"\0\0" + bytes(2) + b"\xff\xff" + b"\xff\xff\xff\xff" * 0xFFFF + bytes(2)
    assert requests.parse_bind(body).values == (None,) * 0xFFFF
    types = b"\0\0\xff\xff" + bytes(4 * 0xFFFF)
    assert requests.parse_parse(types) == Parse(b"", "")


@pytest.mark.parametrize("length", [-2, -(2**31), 2, 2**31 - 1])
def test_a_value_longer_than_its_message_is_refused(length: int) -> None:
    """Nor is there a negative length but that of NULL."""
    body = b"\0\0" + bytes(2) + b"\0\1" + length.to_bytes(4, "big", signed=True) + b"x" + bytes(2)
    with pytest.raises(Malformed):
        requests.parse_bind(body)


def test_names_are_kept_as_servers_keep_them() -> None:
    """At 63 bytes a name is whole, one past it the last byte is not part of the key."""
    whole = b"n" * NAME_BYTES
    assert requests.parse_named(b"S" + whole + b"\0") == Named(b"S", whole)
    assert requests.parse_named(b"P" + whole + b"x\0") == Named(b"P", whole)
    with pytest.raises(Malformed):
        requests.parse_named(b"S\xff\0")


def test_a_row_limit_below_one_is_none() -> None:
    """As servers read it."""
    assert requests.parse_execute(b"\0\xff\xff\xff\xff") == Execute(b"", 0)
    assert requests.parse_execute(b"p\0\0\0\0\7") == Execute(b"p", 7)


@pytest.mark.parametrize("payload", [b"", b"SELECT 1", b"a\0b\0", b"a\0\0", b"\xc0\x80\0"])
def test_a_text_has_one_end_and_one_meaning(payload: bytes) -> None:
    """Exactly one NUL, at the end, and strict UTF-8."""
    with pytest.raises(Malformed):
        requests.parse_query(payload)
