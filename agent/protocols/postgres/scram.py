"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the client's side (RFC 5802, 7677, 5929).

The user's name is empty, as PostgreSQL wants it: the server takes it from the startup message.
"""

import base64
import hashlib
import hmac
import re
import stringprep
import unicodedata

from agent.model.secret import Secret
from agent.protocols.postgres.limits import (
    SCRAM_ITERATIONS_MAX,
    SCRAM_ITERATIONS_MIN,
    SCRAM_MESSAGE_BYTES_MAX,
    SCRAM_NONCE_BYTES_MAX,
    SCRAM_SALT_BYTES_MAX,
)

PLAIN = "SCRAM-SHA-256"
PLUS = "SCRAM-SHA-256-PLUS"
NONCE_BYTES = 18
# an extension of either message, mandatory or not, is none that PostgreSQL has: refused
_FIRST = re.compile(rb"r=([\x21-\x2b\x2d-\x7e]+),s=([A-Za-z0-9+/]+={0,2}),i=([1-9][0-9]{0,9})")
_FINAL = re.compile(rb"v=([A-Za-z0-9+/]+={0,2})")


class ScramFailed(Exception):
    """The server can't be believed. The text is fixed."""


class Scram:
    """One exchange: `first`, then `final`, then `verify`.

    Args:
        password: as the lease has it; the keys made of it stay with it (RFC 5802 section 5.1).
        randomness: NONCE_BYTES of it.
        binding: the tls-server-end-point of the server's certificate; None without TLS.
        plus: whether the mechanism is PLUS; False with a binding: the server did not offer it.
    """

    __slots__ = ("_binding", "_first_bare", "_gs2", "_nonce", "_password", "_signature")

    def __init__(
        self, password: Secret, randomness: bytes, binding: bytes | None, *, plus: bool
    ) -> None:
        self._password = password
        self._nonce = base64.b64encode(randomness)
        self._binding = binding or b""
        if plus:
            self._gs2 = b"p=tls-server-end-point,,"
        else:
            # "y": we could have; a server that did offer it then knows that somebody is between
            self._gs2 = b"n,," if binding is None else b"y,,"
            self._binding = b""
        self._first_bare = b"n=,r=" + self._nonce
        self._signature = b""

    def first(self) -> bytes:
        """Return client-first-message."""
        return self._gs2 + self._first_bare

    def final(self, server_first: bytes) -> bytes:
        """Return client-final-message, the proof that we know the password.

        Raises:
            ScramFailed: the server's message is not proper, or asks for what is absurd.
        """
        nonce, salt, iterations = self._read_first(server_first)
        client_key, server_key = self._password.derive(
            (PLAIN, salt, iterations), lambda password: _keys(password, salt, iterations)
        )
        bare = b"c=" + base64.b64encode(self._gs2 + self._binding) + b",r=" + nonce
        message = self._first_bare + b"," + server_first + b"," + bare
        signature = _hmac(hashlib.sha256(client_key).digest(), message)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._signature = _hmac(server_key, message)
        return bare + b",p=" + base64.b64encode(proof)

    def verify(self, server_final: bytes) -> None:
        """Check that the server knows the password's verifier too.

        Raises:
            ScramFailed: it does not show it.
        """
        found = _FINAL.fullmatch(server_final)
        if found is None or len(server_final) > SCRAM_MESSAGE_BYTES_MAX or not self._signature:
            raise ScramFailed("the server's last SCRAM message is not proper")
        if not hmac.compare_digest(_decode(found[1]), self._signature):
            raise ScramFailed("the server does not know the login's verifier")

    def _read_first(self, message: bytes) -> tuple[bytes, bytes, int]:
        found = _FIRST.fullmatch(message) if len(message) <= SCRAM_MESSAGE_BYTES_MAX else None
        if found is None:
            raise ScramFailed("the server's first SCRAM message is not proper")
        nonce, salt, iterations = found[1], _decode(found[2]), int(found[3])
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise ScramFailed("the server's nonce does not extend ours")
        if len(nonce) > SCRAM_NONCE_BYTES_MAX or not 0 < len(salt) <= SCRAM_SALT_BYTES_MAX:
            raise ScramFailed("the server's nonce or salt is too long")
        if not SCRAM_ITERATIONS_MIN <= iterations <= SCRAM_ITERATIONS_MAX:
            raise ScramFailed(
                f"the server's SCRAM iteration count is not from {SCRAM_ITERATIONS_MIN} "
                f"to {SCRAM_ITERATIONS_MAX}"
            )
        return nonce, salt, iterations


def _keys(password: bytes, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """Return ClientKey and ServerKey (RFC 5802 section 3): about 1 ms for 4,096 iterations."""
    salted = hashlib.pbkdf2_hmac("sha256", prepare(password), salt, iterations)
    return _hmac(salted, b"Client Key"), _hmac(salted, b"Server Key")


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _decode(data: bytes) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        raise ScramFailed("a SCRAM message's base 64 is not proper") from None


def prepare(password: bytes) -> bytes:
    """Return the password by SASLprep (RFC 4013); what it forbids stays as it is.

    So does the server: it made its verifier from the very bytes when SASLprep refused them.
    """
    if password.isascii():
        return password  # nothing is mapped, and what is forbidden (controls) stays as it is
    try:
        text = password.decode()
    except UnicodeDecodeError:
        return password
    mapped = "".join(
        " " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    return prepared.encode() if _may_be(prepared) else password


_FORBIDDEN = (
    stringprep.in_table_c12, stringprep.in_table_c21_c22, stringprep.in_table_c3,
    stringprep.in_table_c4, stringprep.in_table_c5, stringprep.in_table_c6,
    stringprep.in_table_c7, stringprep.in_table_c8, stringprep.in_table_c9,
    stringprep.in_table_a1,
)  # fmt: skip


def _may_be(text: str) -> bool:
    """RFC 4013 sections 2.3 to 2.5."""
    if not text or any(table(c) for c in text for table in _FORBIDDEN):
        return False
    right = [stringprep.in_table_d1(c) for c in text]
    if not any(right):
        return True
    return right[0] and right[-1] and not any(stringprep.in_table_d2(c) for c in text)
