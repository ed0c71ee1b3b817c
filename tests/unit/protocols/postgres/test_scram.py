"""SCRAM-SHA-256, by the RFC's own example and by what a server must not be believed."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.secret import Secret
from agent.protocols.postgres import limits
from agent.protocols.postgres.scram import NONCE_BYTES, Scram, ScramFailed, prepare

# RFC 7677 section 3, whose user name the client-first-message has; PostgreSQL leaves it empty
RFC_NONCE = b"rOprNGfwEbeRWgbNEkqO"
RFC_SALT = base64.b64decode(b"W22ZaJ0SNY7soEsUEjb6gQ==")
SALT = base64.b64encode(b"salt")


def _scram(binding: bytes | None = None, *, plus: bool = False) -> Scram:
    return Scram(Secret(b"pencil"), bytes(NONCE_BYTES), binding, plus=plus)


def _nonce(scram: Scram) -> bytes:
    return scram.first().split(b"r=")[1]


def _first(nonce: bytes, salt: bytes = SALT, iterations: int = 4096) -> bytes:
    return b"r=%b,s=%b,i=%d" % (nonce, salt, iterations)


def test_the_rfc_s_example() -> None:
    """With the RFC's nonce and user, proof and signature are the RFC's own."""
    scram = Scram(Secret(b"pencil"), base64.b64decode(RFC_NONCE), None, plus=False)
    assert scram.first() == b"n,,n=,r=" + RFC_NONCE
    scram._first_bare = b"n=user,r=" + RFC_NONCE
    server_nonce = RFC_NONCE + b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    final = scram.final(_first(server_nonce, base64.b64encode(RFC_SALT)))
    assert final == (
        b"c=biws,r=" + server_nonce + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


@pytest.mark.parametrize(
    ("binding", "plus", "header", "bound"),
    [
        (None, False, b"n,,", b"n,,"),
        (b"hash", False, b"y,,", b"y,,"),
        (b"hash", True, b"p=tls-server-end-point,,", b"p=tls-server-end-point,,hash"),
    ],
)
def test_channel_binding(binding: bytes | None, plus: bool, header: bytes, bound: bytes) -> None:
    """The header says whether we bind, could have, or could not; the proof is over it."""
    scram = _scram(binding, plus=plus)
    assert scram.first().startswith(header + b"n=,r=")
    final = scram.final(_first(_nonce(scram) + b"x"))
    assert final.startswith(b"c=" + base64.b64encode(bound) + b",r=")


def test_a_proof_is_the_server_s_to_check() -> None:
    """The stored key that a server has fits the proof, and its signature is believed."""
    scram = _scram()
    server_first = _first(_nonce(scram) + b"x")
    final = scram.final(server_first)
    bare, _, proof = final.rpartition(b",p=")
    text = scram.first()[3:] + b"," + server_first + b"," + bare
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", b"salt", 4096)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(hashlib.sha256(client_key).digest(), text, "sha256")
    assert bytes(a ^ b for a, b in zip(base64.b64decode(proof), signature, strict=True)) == (
        client_key
    )
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    good = base64.b64encode(hmac.digest(server_key, text, "sha256"))
    scram.verify(b"v=" + good)
    for wrong in (
        b"v=" + good[:-4] + b"AAA=",
        b"e=other-error",
        b"",
        b"v=",
        b"v=" + good + b",x=1",
    ):
        with pytest.raises(ScramFailed):
            scram.verify(wrong)


BOUNDS = (
    ("iterations, least", lambda n: _first(n + b"x", iterations=limits.SCRAM_ITERATIONS_MIN), True),
    ("iterations below", lambda n: _first(n + b"x", iterations=4095), False),
    ("iterations, most", lambda n: _first(n + b"x", iterations=limits.SCRAM_ITERATIONS_MAX), True),
    ("iterations above", lambda n: _first(n + b"x", iterations=100_001), False),
    ("longest salt", lambda n: _first(n + b"x", base64.b64encode(bytes(1024))), True),
    ("longer salt", lambda n: _first(n + b"x", base64.b64encode(bytes(1025))), False),
    ("shortest nonce", lambda n: _first(n + b"x"), True),
    ("our nonce", _first, False),
    ("longest nonce", lambda n: _first(n + b"x" * (512 - len(n))), True),
    ("longer nonce", lambda n: _first(n + b"x" * (513 - len(n))), False),
    ("too long a message", lambda n: _first(n + b"x", b"A" * 4096), False),
)


@pytest.mark.parametrize(("_", "make", "fits"), BOUNDS, ids=[row[0] for row in BOUNDS])
def test_bounds(_: str, make: object, fits: bool) -> None:
    """Each number at its bound is taken, and one past it is refused."""
    assert callable(make)
    scram = _scram()
    message = make(_nonce(scram))
    if fits:
        assert scram.final(message).startswith(b"c=")
    else:
        with pytest.raises(ScramFailed):
            scram.final(message)


@given(message=st.binary(max_size=200))
def test_any_message_is_refused(message: bytes) -> None:
    """Bytes that do not extend our nonce are refused, whatever they are."""
    with pytest.raises(ScramFailed):
        _scram().final(message)
    with pytest.raises(ScramFailed):
        _scram().verify(message)


def test_no_signature_before_the_proof() -> None:
    """The empty signature of an exchange that made no proof yet fits nothing."""
    with pytest.raises(ScramFailed):
        _scram().verify(b"v=AAAA")


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("I\u00adX", "IX"),  # RFC 4013 section 3
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("\u0007", "\u0007"),  # forbidden: as it is
        ("\u0627\u0031", "\u0627\u0031"),  # forbidden: as it is
        ("\u0627\u0628", "\u0627\u0628"),
        ("a\u3000b", "a b"),
        ("\u00ad", "\u00ad"),  # nothing would be left
        ("\u0627a\u0628", "\u0627a\u0628"),
    ],
)
def test_saslprep(password: str, prepared: str) -> None:
    """The RFC's examples, and what it forbids stays as it is: so does the server."""
    assert prepare(password.encode()) == prepared.encode()


def test_bytes_that_are_no_text() -> None:
    """A password that is not UTF-8 is used as it is."""
    assert prepare(b"\xff\xfe") == b"\xff\xfe"


def test_the_keys_are_made_once_for_a_lease() -> None:
    """A second login with the same secret, salt and count takes the keys of the first."""
    secret = Secret(b"pencil")
    finals = set()
    for _ in range(2):
        scram = Scram(secret, base64.b64decode(RFC_NONCE), None, plus=False)
        finals.add(scram.final(_first(_nonce(scram) + b"x")))
    assert len(finals) == 1

    def never(_: bytes) -> tuple[bytes, bytes]:
        raise AssertionError("computed again")

    client_key, server_key = secret.derive(("SCRAM-SHA-256", b"salt", 4096), never)
    assert client_key != server_key
    with pytest.raises(AssertionError):
        secret.derive(("SCRAM-SHA-256", b"salt", 4097), never)
