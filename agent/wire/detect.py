"""What a connection begins with: TLS, clear-text HTTP, or nothing that we know.

The policy names the target and so the protocol; this only confirms it, within a bounded peek.
"""

import re
from dataclasses import dataclass

from agent.wire.clienthello import ClientHello, NeedMore, NotTls, peek_client_hello

METHOD_PEEK_BYTES = 34  # an empty line, a method of 32 characters at most: decided by then
_HANDSHAKE = b"\x16"
_METHOD = re.compile(rb"(?:\r\n)?([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ")
_METHOD_START = re.compile(rb"(?:\r|(?:\r\n)?[!#$%&'*+\-.^_`|~0-9A-Za-z]{0,32})")


@dataclass(frozen=True, slots=True)
class ClearHttp:
    """A request line begins here: a method and a space. The HTTP parser decides the rest."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Neither. detail is fixed text."""

    detail: str


Detected = ClientHello | ClearHttp | NeedMore | Unknown


def detect(data: bytes) -> Detected:
    """Look at all bytes that came so far; NeedMore never comes beyond the peek's bound."""
    if not data:
        return NeedMore()
    if data[:1] == _HANDSHAKE:
        found = peek_client_hello(data)
        return Unknown(found.detail) if isinstance(found, NotTls) else found
    if _METHOD.match(data):
        return ClearHttp()
    if len(data) <= METHOD_PEEK_BYTES and _METHOD_START.fullmatch(data):
        return NeedMore()
    return Unknown("neither TLS nor an HTTP request line")
