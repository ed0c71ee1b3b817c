"""The loop's first bytes: packets in an order that has one meaning, then what waits."""

import pytest

from agent.protocols.postgres import limits
from agent.protocols.postgres.frames import Malformed
from agent.protocols.postgres.intake import Intake
from agent.protocols.postgres.messages import SSL_REQUEST, password_message, startup_message
from agent.protocols.postgres.startup import GssRequest, SslRequest, Startup

GSS = (8).to_bytes(4, "big") + (1234 << 16 | 5680).to_bytes(4, "big")
STARTUP = startup_message(3 << 16, [("user", "a")])


def _intake(data: bytes) -> Intake:
    intake = Intake()
    intake.add(data)
    return intake


def test_packets_in_order() -> None:
    """A GSSENCRequest once, an SSLRequest with nothing behind it, then a startup message."""
    intake = _intake(GSS + SSL_REQUEST)
    assert intake.next_packet() == GssRequest()
    assert intake.next_packet() == SslRequest()
    assert intake.next_packet() is None
    intake.under_tls()
    intake.add(STARTUP + b"Q")
    assert intake.next_packet() == Startup(3, 0, (("user", "a"),))
    assert intake.take_rest() == b"Q"
    assert intake.take_rest() == b""


@pytest.mark.parametrize("data", [SSL_REQUEST + b"\0", SSL_REQUEST * 2, GSS * 2])
def test_what_may_not_come(data: bytes) -> None:
    """Bytes in clear behind a request for TLS, and a request twice."""
    intake = _intake(data)
    if data[:8] == GSS:
        assert intake.next_packet() == GssRequest()
    with pytest.raises(Malformed):
        intake.next_packet()


def test_no_encryption_within_tls() -> None:
    """Under TLS there is no request for it any more."""
    for data in (SSL_REQUEST, GSS):
        intake = Intake()
        intake.under_tls()
        intake.add(data)
        with pytest.raises(Malformed):
            intake.next_packet()


def test_passwords_are_dropped_up_to_a_number() -> None:
    """PASSWORD_MESSAGES_MAX password messages vanish, in any pieces; one more is refused."""
    for piece in (1, 5, 100):
        intake = Intake()
        data = password_message(b"secret") * limits.PASSWORD_MESSAGES_MAX + b"Q"
        for at in range(0, len(data), piece):
            intake.add(data[at : at + piece])
            intake.drop_passwords()
        assert intake.take_rest() == b"Q"
        intake.add(password_message(b"secret"))
        with pytest.raises(Malformed):
            intake.drop_passwords()


def test_what_waits_is_bounded() -> None:
    """HELD_BYTES_MAX is not full, one more is; HELD_BYTES_HARD does not overflow, one more does."""
    intake = _intake(bytes(limits.HELD_BYTES_MAX))
    full, overflows = [intake.is_full], []
    intake.add(b"x")
    full.append(intake.is_full)
    intake.add(bytes(limits.HELD_BYTES_HARD - limits.HELD_BYTES_MAX - 1))
    overflows.append(intake.overflows)
    intake.add(b"x")
    overflows.append(intake.overflows)
    assert full == overflows == [False, True]
