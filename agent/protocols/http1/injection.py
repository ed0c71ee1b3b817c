"""How a leased credential goes into a request, and what of the loop's own is taken out for it.

Always taken out: Authorization, Proxy-Authorization and the other Proxy-* fields (see fields.py).
With a credential also: the field, or the query parameter, that has the credential's own name,
in any case. Cookies are the loop's own and stay, unless the credential is a Cookie field.
"""

import base64
import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

from agent.model.credential import Basic, Bearer, Credential, Header, QueryParameter
from agent.protocols.http1.fields import (
    BAD,
    CONNECTION,
    EXPECT,
    HOST,
    LENGTH,
    TRANSFER,
    UPGRADE,
    request_field,
)

_VALUE = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_FRAMING = frozenset({BAD, CONNECTION, EXPECT, HOST, LENGTH, TRANSFER, UPGRADE})


class Injection:
    """A credential made ready. It has no repr that shows it.

    field_line is "Name: value" or empty; parameter is "name=value" or empty; the lower-case
    names of what they replace beside them. A client certificate is shown in TLS, and AWS keys
    sign: both have neither.

    Raises:
        ValueError: the credential can't stand in a request. The text does not quote it.
    """

    __slots__ = ("field_line", "field_name", "parameter", "parameter_name")

    def __init__(self, credential: Credential) -> None:
        self.field_line = self.field_name = self.parameter = self.parameter_name = b""
        match credential:
            case Bearer(token):
                self._set_field(b"Authorization", b"Bearer " + token.reveal())
            case Basic(user, password):
                if ":" in user:
                    raise ValueError("the user name has a colon")
                pair = user.encode() + b":" + password.reveal()
                self._set_field(b"Authorization", b"Basic " + base64.b64encode(pair))
            case Header(name, value):
                self._set_field(name.encode(), value.reveal())
            case QueryParameter(name, value):
                self.parameter_name = name.encode().lower()
                quoted = quote_from_bytes(value.reveal(), safe="")
                self.parameter = f"{quote_from_bytes(name.encode(), safe='')}={quoted}".encode()

    def _set_field(self, name: bytes, value: bytes) -> None:
        role, lower = request_field(name)
        if role in _FRAMING or not _VALUE.fullmatch(value):
            raise ValueError("the credential does not fit a header field")
        self.field_name = lower
        self.field_line = name + b": " + value

    def replaces(self, lower: bytes) -> bool:
        """Whether a field of this lower-case name stands in the credential's place."""
        return lower == self.field_name or (
            b"_" in lower and lower.replace(b"_", b"-") == self.field_name
        )

    def query(self, query: bytes | None) -> bytes | None:
        """Return the query with the credential's parameter and none of the loop's of that name."""
        if not self.parameter:
            return query
        pairs = [] if not query else query.split(b"&")
        kept = [pair for pair in pairs if not self._names_parameter(pair)]
        return b"&".join([*kept, self.parameter])

    def _names_parameter(self, pair: bytes) -> bool:
        """Some servers also split at ";": a pair is dropped if any part has the name."""
        names = (part.partition(b"=")[0] for part in pair.split(b";"))
        return any(
            unquote_to_bytes(name.replace(b"+", b" ")).strip().lower() == self.parameter_name
            for name in names
        )
