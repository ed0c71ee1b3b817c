"""What a request carries of a credential beside the secret itself: servers repeat that too.

A server may repeat Basic's whole value, or of a field only what it read in it: the token behind the
scheme, a parameter's or a cookie's value. Each is searched for in answers like the secret.
"""

import base64
import binascii
import re
from collections.abc import Iterator

from agent.model.credential import Basic, Credential, Header
from agent.model.secret import Secret

TOKEN_BYTES_MIN = 6  # behind a scheme; shorter ones stand in answers by accident
VALUE_BYTES_MIN = 16  # of a parameter or a cookie: others of them are no secret
VALUES_MAX = 32  # of one field; what is behind is part of the whole value only
_SCHEME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+[ \t]+(.+)", re.DOTALL)
_VALUE = re.compile(rb"(?:^|[\s,;:])[!#$%&'*+\-.^_`|~0-9A-Za-z]+=(?:\"([^\"]*)\"|([^\s,;\"]+))")


def carried_by(credential: Credential) -> tuple[Secret, ...]:
    """Return it; the same objects for the same credential."""
    match credential:
        case Basic(user, password):
            pair = password.derive(("pair", user), lambda value: _pair(user, value))
            return (pair,)
        case Header(_, value):
            return value.derive("carried", lambda whole: tuple(map(Secret, _read_in(whole))))
        case _:
            return ()


def _pair(user: str, password: bytes) -> Secret:
    return Secret(base64.b64encode(user.encode() + b":" + password))


def _read_in(whole: bytes) -> list[bytes]:
    """Return the parts of a field's value that a server reads in it, each once."""
    found = _SCHEME.fullmatch(whole)
    token = found[1] if found else b""
    parts = [token] if len(token) >= TOKEN_BYTES_MIN else []
    if token and whole[:5].lower() == b"basic":
        parts += [one for one in _password(token) if len(one) >= TOKEN_BYTES_MIN]
    parts += _values(token or whole)
    return list(dict.fromkeys(parts))


def _values(text: bytes) -> Iterator[bytes]:
    for count, found in enumerate(_VALUE.finditer(text)):
        value = found[1] or found[2] or b""
        if count < VALUES_MAX and len(value) >= VALUE_BYTES_MIN:
            yield value


def _password(token: bytes) -> list[bytes]:
    try:
        return [base64.b64decode(token, validate=True).partition(b":")[2]]
    except binascii.Error:
        return []
