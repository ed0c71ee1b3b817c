"""The SCRAM-SHA-256 verifier that PostgreSQL keeps instead of a password.

It is computed here, so that the password is in no statement and no log of the server's. Source:
RFC 5803 and RFC 7677; PostgreSQL manual, pg_authid, `SCRAM-SHA-256$<iterations>:<salt>$<stored
key>:<server key>`.
"""

import base64
import hashlib
import hmac

ITERATIONS = 4_096  # the server's own default; the password has 256 bits
SALT_BYTES = 16
PASSWORD_BYTES = 32


def new_password(randomness: bytes) -> bytes:
    """Return a password of letters, digits, '-' and '_' (so that SASLprep changes nothing).

    Raises:
        ValueError: not PASSWORD_BYTES of randomness.
    """
    if len(randomness) != PASSWORD_BYTES:
        raise ValueError(f"a password takes {PASSWORD_BYTES} random bytes")
    return base64.urlsafe_b64encode(randomness).rstrip(b"=")


def verifier(password: bytes, salt: bytes) -> str:
    """Return the text that CREATE ROLE … PASSWORD takes.

    Raises:
        ValueError: not SALT_BYTES of salt.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a verifier takes {SALT_BYTES} random bytes of salt")
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = (salt, stored, server)
    in_base64 = [base64.b64encode(part).decode() for part in parts]
    return f"SCRAM-SHA-256${ITERATIONS}:{in_base64[0]}${in_base64[1]}:{in_base64[2]}"
