"""Destination binding: SNI and Host must both name the target (protocols.md, RFC 9110 7.4 → 421).

Credential, policy, dial and record use the target's one canonical form; what the loop says is
compared with it and never forwarded.
"""

import re
from ipaddress import AddressValueError, IPv6Address

from agent.model.grant import Target, UpstreamTls

HTTPS_PORT = 443
HTTP_PORT = 80
_HOST = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9](?:[A-Za-z0-9_.-]{0,253}[A-Za-z0-9])?)\.?)"
    rb"(?::([0-9]{1,5}))?"
)


def parse_authority(value: bytes) -> tuple[str, int | None] | None:
    """Return canonical host and port of "host[:port]", None when it is not exactly that."""
    match = _HOST.fullmatch(value)
    if not match or b".." in value:
        return None
    literal, name, port = match.groups()
    if literal is None:
        host = name.decode().lower()
    else:
        try:
            host = str(IPv6Address(literal.decode()))
        except AddressValueError:
            return None
    return host, None if port is None else int(port)


class Binding:
    """What one connection may name."""

    __slots__ = ("_host", "_known", "_ports", "_tls_fits", "host_field")

    def __init__(self, target: Target, tls_name: str | None) -> None:
        clear = tls_name is None
        self._host = target.host
        literal = ":" in target.host or re.fullmatch(r"[0-9.]+", target.host) is not None
        named = (tls_name or "").lower().removesuffix(".")
        self._tls_fits = clear or named == target.host or (literal and not named)
        self._ports: frozenset[int | None] = frozenset(
            [target.port]
            + ([None, HTTP_PORT] if clear else [])
            + ([None] if target.port == HTTPS_PORT and not clear else [])
        )
        self._known: bytes | None = None  # the last value that fitted
        default = HTTPS_PORT if target.tls is UpstreamTls.VERIFY_FULL else HTTP_PORT
        name = f"[{target.host}]" if ":" in target.host else target.host
        port = "" if target.port == default else f":{target.port}"
        self.host_field = f"{name}{port}".encode()

    def fits(self, host: bytes | None) -> bool:
        """Whether SNI and this Host name the target."""
        if not self._tls_fits or host is None:
            return False
        if host == self._known:
            return True
        authority = parse_authority(host)
        if authority is None or authority[0] != self._host or authority[1] not in self._ports:
            return False
        self._known = host
        return True
