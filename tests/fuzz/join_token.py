"""Invariant: any text as a join token is refused with words; only the signed one is taken.

As its holder reads it, unverified, it is a name and a certificate or refused too.
"""

import base64
import functools
import json
import tempfile
from pathlib import Path

import jwt

from agent.collector.authority import Authority, open_authority
from agent.collector.tokens import TokenRefused, ca_of, create_token, utc_now, verify_token
from tests.fuzz.engine import main


@functools.cache
def _authority() -> Authority:
    with tempfile.TemporaryDirectory() as folder:
        return open_authority(Path(folder), utc_now())


@functools.cache
def _token() -> str:
    return create_token(_authority(), "web1", 86_400, int(utc_now().timestamp()))


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


SEEDS = (
    b'{"alg":"ES256","typ":"JWT"}\n{"sub":"web1","ca":"AA=="}',
    b'{"alg":"none"}\n{"iss":"loopwarden-collector","aud":"loopwarden-enroll","exp":1e400}',
    b'{"alg":"HS256","crit":["b64"],"b64":false}\n{"ca":7}',
    b'{"alg":"ES256"}\n' + b"[" * 3_000,
    b"\xff.e30.AA\n{}",
)


def check(data: bytes) -> None:
    """Read it as a token, as header and claims, and as a part of a certificate or a token."""
    head, _, claims = data.partition(b"\n")
    der = base64.b64decode(jwt.decode(_token(), options={"verify_signature": False})["ca"])
    at = int.from_bytes(data[:2], "big") % len(der)
    changed = base64.b64encode(der[:at] + data[2:5] + der[at + len(data[2:5]) :]).decode()
    signature = _token().rpartition(".")[2]
    for text in (
        data.decode("utf-8", "replace"),
        f"{_part(head)}.{_part(claims)}.{signature}",
        f"{_part(head)}.{_part(json.dumps({'sub': 'a', 'ca': changed}).encode())}.{signature}",
        _token()[: at % len(_token())] + head.decode("latin-1"),
    ):
        _check_refused(text)


def _check_refused(text: str) -> None:
    try:
        pem, name = ca_of(text)
    except TokenRefused:
        pass
    else:
        assert pem.startswith(b"-----BEGIN CERTIFICATE-----")
        assert isinstance(name, str)
    try:
        verify_token(_authority(), text)
    except TokenRefused:
        return
    assert text == _token()


if __name__ == "__main__":
    main("join_token")
