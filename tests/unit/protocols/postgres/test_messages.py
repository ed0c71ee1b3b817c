"""Messages that we build are what the server's documentation says, byte for byte."""

import pytest

from agent.protocols.postgres import messages


def test_bytes() -> None:
    """Each builder, against bytes written by hand."""
    assert bytes.fromhex("0000000804d2162f") == messages.SSL_REQUEST
    assert bytes.fromhex("520000000800000000") == messages.AUTHENTICATION_OK
    assert messages.ready_for_query(b"I") == b"Z\0\0\0\x05I"
    assert messages.parameter_status("a", "b") == b"S\0\0\0\x08a\0b\0"
    assert messages.backend_key_data(b"pid.", b"key.") == b"K\0\0\0\x0cpid.key."
    assert messages.cancel_request(b"pid.", b"key.") == bytes.fromhex("0000001004d2162e") + (
        b"pid.key."
    )
    assert messages.startup_message(3 << 16, [("user", "a")]) == (
        b"\0\0\0\x10\0\x03\0\0user\0a\0\0"
    )
    assert messages.negotiate_protocol_version(3 << 16, ["_pq_.a"]) == (
        b"v\0\0\0\x13\0\x03\0\0\0\0\0\x01_pq_.a\0"
    )
    assert messages.command_complete("SELECT 1") == b"C\0\0\0\x0dSELECT 1\0"
    assert messages.password_message(b"x") == b"p\0\0\0\x06x\0"
    assert messages.sasl_initial_response("M", b"abc") == b"p\0\0\0\x0dM\0\0\0\0\x03abc"
    assert messages.sasl_response(b"abc") == b"p\0\0\0\x07abc"
    assert messages.error_response("ERROR", "42501", "no", "why") == (
        b"E\0\0\0\x23SERROR\0VERROR\0C42501\0Mno\0Dwhy\0\0"
    )


def test_no_nul_within_a_text() -> None:
    """A text with a NUL can't be built: what is behind it would be another field."""
    with pytest.raises(ValueError, match="NUL"):
        messages.cstring("a\0b")
    with pytest.raises(ValueError, match="NUL"):
        messages.startup_message(3 << 16, [("user", "a\0database\0b")])
