"""Startup packets: exactly what is there, or a refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocols.postgres import limits
from agent.protocols.postgres.frames import Malformed
from agent.protocols.postgres.messages import SSL_REQUEST, cancel_request, startup_message
from agent.protocols.postgres.startup import (
    CancelRequest,
    GssRequest,
    SslRequest,
    Startup,
    next_packet,
)

V30 = 3 << 16
NAME = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=20)
VALUE = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
GSS = (8).to_bytes(4, "big") + (1234 << 16 | 5680).to_bytes(4, "big")


@given(parameters=st.dictionaries(NAME, VALUE, max_size=10), rest=st.binary(max_size=10))
def test_what_is_built_is_read(parameters: dict[str, str], rest: bytes) -> None:
    """A startup message is read as it was built, and what is behind it stays."""
    data = startup_message(V30, parameters.items())
    assert next_packet(data + rest) == (Startup(3, 0, tuple(parameters.items())), rest)
    for at in range(len(data)):
        assert next_packet(data[:at]) is None


@given(data=st.binary(max_size=100))
def test_any_bytes(data: bytes) -> None:
    """Any bytes are a packet, its beginning, or Malformed."""
    for text in (data, (len(data) + 8).to_bytes(4, "big") + V30.to_bytes(4, "big") + data):
        try:
            found = next_packet(text)
        except Malformed:
            continue
        assert found is None or len(found[1]) < len(text)


def test_requests() -> None:
    """The three requests, and a cancel key of either protocol."""
    assert next_packet(SSL_REQUEST) == (SslRequest(), b"")
    assert next_packet(GSS + b"x") == (GssRequest(), b"x")
    for size in (limits.BACKEND_KEY_BYTES_MIN, 32, limits.BACKEND_KEY_BYTES_MAX):
        packet = cancel_request(b"pid.", bytes(size))
        assert next_packet(packet) == (CancelRequest(b"pid.", bytes(size)), b"")
    for size in (limits.BACKEND_KEY_BYTES_MIN - 1, limits.BACKEND_KEY_BYTES_MAX + 1):
        with pytest.raises(Malformed):
            next_packet(cancel_request(b"pid.", bytes(size)))
    assert "key" not in repr(CancelRequest(b"pid.", b"key"))


def _padded(total: int) -> bytes:
    empty = startup_message(V30, [("user", "")])
    return startup_message(V30, [("user", "u" * (total - len(empty)))])


def test_bounds() -> None:
    """Packet, number of parameters and a name at their bounds, and one past them."""

    def many(count: int) -> bytes:
        return startup_message(V30, [(f"p{number}", "") for number in range(count)])

    def named(size: int) -> bytes:
        return startup_message(V30, [("n" * size, "")])

    for make, bound in (
        (_padded, limits.STARTUP_BYTES_MAX),
        (many, limits.PARAMETERS_MAX),
        (named, limits.PARAMETER_NAME_BYTES_MAX),
    ):
        assert next_packet(make(bound)) is not None
        with pytest.raises(Malformed):
            next_packet(make(bound + 1))


def test_versions() -> None:
    """The minor version that is spoken: 3.0 and 3.2; 3.1 never was; newer is 3.2."""
    spoken = {minor: Startup(3, minor).spoken for minor in (0, 1, 2, 3, 9999)}
    assert spoken == {0: 0, 1: 0, 2: 2, 3: 2, 9999: 2}


def test_extensions_are_kept_apart() -> None:
    """Names with _pq_. are options of the protocol, not settings."""
    data = startup_message(V30 | 2, [("user", "a"), ("_pq_.x", "1")])
    assert next_packet(data) == (Startup(3, 2, (("user", "a"),), ("_pq_.x",)), b"")


def test_another_protocol_is_not_read() -> None:
    """What stands in a packet of another major version is not looked at."""
    found = next_packet((20).to_bytes(4, "big") + (2 << 16).to_bytes(4, "big") + b"\xff" * 12)
    assert found == (Startup(2, 0), b"")
