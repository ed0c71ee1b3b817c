"""A login's bounds; what goes wrong in one is in tests/protocols/postgres."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.secret import Secret
from agent.protocols.postgres import limits
from agent.protocols.postgres.answers import Refused
from agent.protocols.postgres.frames import Malformed
from agent.protocols.postgres.login import Claim, Login
from agent.protocols.postgres.messages import (
    AUTHENTICATION_OK,
    message,
    parameter_status,
    ready_for_query,
)

READY = ready_for_query(b"I")
NOTICE = message(b"N", b"C01000\0\0")


def _claim(*methods: str, password: bytes | None = b"pass-word", version: int = 0) -> Claim:
    secret = None if password is None else Secret(password)
    return Claim("u", secret, frozenset(methods), True, None, version, bytes(18))


def _trusted(version: int = 0) -> Login:
    login = Login(_claim("trust", version=version))
    login.feed(AUTHENTICATION_OK)
    return login


def _key(size: int) -> bytes:
    return message(b"K", b"pid." + bytes(size))


def _status(size: int) -> bytes:
    """A ParameterStatus of so many bytes with its header."""
    return parameter_status("p", "x" * (size - 8))


BOUNDS: tuple[tuple[str, int, object], ...] = (
    ("messages", limits.LOGIN_MESSAGES_MAX - 2, lambda n: NOTICE * n),
    ("bytes", limits.LOGIN_BYTES_MAX - len(AUTHENTICATION_OK) - len(READY),
     lambda n: _status(60_000) * (n // 60_000 - 1) + _status((n % 60_000 + 60_000) // 2)
     + _status((n % 60_000 + 60_000 + 1) // 2)),
    ("message", limits.LOGIN_MESSAGE_BYTES_MAX, lambda n: _status(n + 5)),
    ("parameters", limits.SERVER_PARAMETERS_MAX,
     lambda n: b"".join(parameter_status(f"p{i}", "") for i in range(n))),
    ("key of 3.0", limits.BACKEND_KEY_BYTES_MIN, _key),
)  # fmt: skip


@pytest.mark.parametrize(("_", "bound", "make"), BOUNDS, ids=[row[0] for row in BOUNDS])
def test_bounds(_: str, bound: int, make: object) -> None:
    """Each number at its bound is taken, and one past it is refused."""
    assert callable(make)
    login = _trusted()
    login.feed(make(bound) + READY)
    assert login.ready
    with pytest.raises(Malformed):
        _trusted().feed(make(bound + 1) + READY)


def test_keys_of_3_2() -> None:
    """In 3.2 a key has 4 to 256 bytes."""
    for size in (4, 5, 32, limits.BACKEND_KEY_BYTES_MAX):
        login = _trusted(version=2)
        login.feed(_key(size))
        assert login.key == (b"pid.", bytes(size))
    for size in (0, 3, limits.BACKEND_KEY_BYTES_MAX + 1):
        with pytest.raises(Malformed):
            _trusted(version=2).feed(_key(size))


def test_md5_is_postgresql_s() -> None:
    """The answer to an MD5 request is what the server's documentation says."""
    login = Login(_claim("md5"))
    sent = login.feed(message(b"R", (5).to_bytes(4, "big") + b"\x01\x02\x03\x04"))
    inner = hashlib.md5(b"pass-word" + b"u").hexdigest().encode()
    outer = hashlib.md5(inner + b"\x01\x02\x03\x04").hexdigest().encode()
    assert sent == message(b"p", b"md5" + outer + b"\0")


@given(data=st.binary(max_size=300), piece=st.integers(1, 50))
def test_any_bytes(data: bytes, piece: int) -> None:
    """Any bytes of a server end in a refusal or wait, and never bring the password up."""
    for login in (Login(_claim("scram-sha-256", "md5")), _trusted()):
        sent = b""
        try:
            for at in range(0, len(data), piece):
                sent += login.feed(data[at : at + piece])
        except (Malformed, Refused) as error:
            sent += str(error).encode()
        assert b"pass-word" not in sent
        assert login.ready or not login.take_rest().startswith(b"Z\0\0\0\x05I")


def test_what_is_behind_is_kept() -> None:
    """What came behind ReadyForQuery is nobody's yet, and is given out whole."""
    login = _trusted()
    login.feed(NOTICE + READY + NOTICE + b"D")
    assert login.ready
    assert login.notices == [b"C01000\0\0"]
    assert login.take_rest() == NOTICE + b"D"


def test_notices_before_the_login_are_dropped() -> None:
    """What a server says before it let us in does not go to the loop."""
    login = Login(_claim("trust"))
    login.feed(NOTICE + AUTHENTICATION_OK + READY)
    assert login.ready
    assert not login.notices


def test_without_a_password() -> None:
    """A login that has none gives nothing, whatever is asked for."""
    for code in (3, 5, 10):
        body = code.to_bytes(4, "big") + {3: b"", 5: b"salt", 10: b"SCRAM-SHA-256\0\0"}[code]
        login = Login(_claim("scram-sha-256", "md5", "password", password=None))
        with pytest.raises(Refused):
            login.feed(message(b"R", body))
