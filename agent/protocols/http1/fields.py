"""Header field names: grammar, and what a filter has to know of some of them (RFC 9110, 9112).

The role of a name is looked up, not computed, for every line; the look-up keeps the last
NAMES_CACHED names of any spelling.
"""

import re
from functools import lru_cache
from typing import Final

from agent.protocols.http1.limits import FIELD_NAME_BYTES_MAX

NAMES_CACHED = 2048

PLAIN: Final = 0  # forwarded
HOST: Final = 1
LENGTH: Final = 2
TRANSFER: Final = 3
CONNECTION: Final = 4
DROPPED: Final = 5  # hop-by-hop, or a credential of the sender's
UPGRADE: Final = 6
EXPECT: Final = 7
REFUSED: Final = 8  # says another method or path than the request line
SINGLE: Final = 9  # forwarded, but only one line of it has one meaning
SCANNED: Final = 10  # Accept-Encoding, A-IM, Range: kept only where nothing has to be scanned
CODING: Final = 11  # Content-Encoding or IM of a response
AUTHORIZATION: Final = 13  # never forwarded; what it says of itself may matter
BAD: Final = 12  # not a field name, or one that some servers read as another

_TOKEN = re.compile(rb"[!#$%%&'*+\-.^_`|~0-9A-Za-z]{1,%d}" % FIELD_NAME_BYTES_MAX)

_REQUEST: dict[bytes, int] = {
    b"host": HOST,
    b"content-length": LENGTH,
    b"transfer-encoding": TRANSFER,
    b"connection": CONNECTION,
    b"keep-alive": DROPPED,
    b"proxy": DROPPED,  # CGI servers read it as the address of their own proxy
    b"authorization": AUTHORIZATION,
    b"te": DROPPED,
    b"trailer": DROPPED,
    b"http2-settings": DROPPED,
    b"upgrade": UPGRADE,
    b"expect": EXPECT,
    b"x-http-method": REFUSED,
    b"x-http-method-override": REFUSED,
    b"x-method-override": REFUSED,
    b"x-original-url": REFUSED,
    b"x-rewrite-url": REFUSED,
    b"content-type": SINGLE,
    b"content-encoding": SINGLE,
    b"content-range": SINGLE,
    b"user-agent": SINGLE,
    b"accept-encoding": SCANNED,
    b"range": SCANNED,
    b"if-range": SCANNED,
    b"a-im": SCANNED,  # asks for a delta, or for gzip, under a name of its own (RFC 3229)
}
_RESPONSE: dict[bytes, int] = {
    b"content-length": LENGTH,
    b"transfer-encoding": TRANSFER,
    b"connection": CONNECTION,
    b"content-encoding": CODING,
    b"im": CODING,
    b"keep-alive": DROPPED,
    b"proxy-connection": DROPPED,
    b"proxy-authenticate": DROPPED,
    b"proxy-authentication-info": DROPPED,
    b"te": DROPPED,
    b"trailer": DROPPED,
    b"upgrade": DROPPED,
    b"alt-svc": DROPPED,  # would lead the loop to another port or to QUIC
    b"loopwarden-rule": DROPPED,  # ours alone
    b"content-type": SINGLE,
    b"location": SINGLE,
}
_NAMED = frozenset({HOST, LENGTH, TRANSFER, CONNECTION, DROPPED, UPGRADE, EXPECT, REFUSED, SINGLE})


@lru_cache(NAMES_CACHED)
def request_field(name: bytes) -> tuple[int, bytes]:
    """Return role and lower-case form of a request's field name.

    A name with "_" for "-" of one that matters here is BAD: CGI-like servers read both as one.
    """
    if not _TOKEN.fullmatch(name):
        return BAD, b""
    lower = name.lower()
    role = DROPPED if lower.startswith(b"proxy-") else _REQUEST.get(lower, PLAIN)
    if role == PLAIN and b"_" in lower:
        return (BAD if _REQUEST.get(lower.replace(b"_", b"-")) in _NAMED else PLAIN), lower
    return role, lower


@lru_cache(NAMES_CACHED)
def response_field(name: bytes) -> tuple[int, bytes]:
    """Return role and lower-case form of a response's field name."""
    if not _TOKEN.fullmatch(name):
        return BAD, b""
    lower = name.lower()
    return _RESPONSE.get(lower, PLAIN), lower
