"""The verifier: the published example, and its bounds."""

import base64

import pytest

from agent.credentials.postgres.scram import (
    ITERATIONS,
    PASSWORD_BYTES,
    SALT_BYTES,
    new_password,
    verifier,
)


def test_the_example_of_rfc_7677() -> None:
    """RFC 7677 section 3: the server's signature there is made with the server key made here."""
    import hashlib
    import hmac

    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    text = verifier(b"pencil", salt)
    keys = text.removeprefix(f"SCRAM-SHA-256${ITERATIONS}:W22ZaJ0SNY7soEsUEjb6gQ==$")
    stored, server = map(base64.b64decode, keys.split(":"))
    messages = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    signature = base64.b64encode(hmac.digest(server, messages, "sha256"))
    assert signature == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    mask = hmac.digest(stored, messages, "sha256")
    client = bytes(a ^ b for a, b in zip(proof, mask, strict=True))
    assert hashlib.sha256(client).digest() == stored


def test_bounds() -> None:
    """So many random bytes, not one more or less."""
    assert len(new_password(bytes(PASSWORD_BYTES))) == 43
    assert new_password(b"\xff" * PASSWORD_BYTES).decode().isascii()
    for count in (PASSWORD_BYTES - 1, PASSWORD_BYTES + 1):
        with pytest.raises(ValueError, match="random bytes"):
            new_password(bytes(count))
    for count in (SALT_BYTES - 1, SALT_BYTES + 1):
        with pytest.raises(ValueError, match="random bytes"):
            verifier(b"x", bytes(count))
