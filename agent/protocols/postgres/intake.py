"""The loop's bytes while a session opens: startup packets, then what waits for the steady half."""

from agent.protocols.postgres.frames import HEADER_BYTES, Malformed
from agent.protocols.postgres.limits import (
    FRONTEND,
    HELD_BYTES_HARD,
    HELD_BYTES_MAX,
    PASSWORD_MESSAGES_MAX,
)
from agent.protocols.postgres.messages import TERMINATE
from agent.protocols.postgres.startup import (
    Goodbye,
    GssRequest,
    Packet,
    SslRequest,
    next_packet,
)

_PASSWORD = ord("p")


class Intake:
    """Bytes from the loop, in order."""

    __slots__ = ("_gss_asked", "_held", "_passwords", "_tls", "paused")

    def __init__(self) -> None:
        self._held = b""
        self._tls = False
        self._gss_asked = False
        self._passwords = 0
        self.paused = False

    @property
    def is_full(self) -> bool:
        """Whether the loop has to wait."""
        return len(self._held) > HELD_BYTES_MAX

    @property
    def overflows(self) -> bool:
        """Whether it was not made to wait."""
        return len(self._held) > HELD_BYTES_HARD

    def under_tls(self) -> None:
        """Say that what comes now comes through TLS."""
        self._tls = True

    def add(self, data: bytes) -> None:
        """Append bytes."""
        self._held = self._held + data if self._held else data

    def take_rest(self) -> bytes:
        """Return and forget all bytes."""
        held, self._held = self._held, b""
        return held

    def next_packet(self) -> Packet | None:
        """Return the next startup packet, None when more bytes are needed.

        Raises:
            Malformed: it is none, or may not come now.
        """
        held = self._held
        if held and TERMINATE.startswith(held[: len(TERMINATE)]):
            return Goodbye() if len(held) >= len(TERMINATE) else None
        found = next_packet(held)
        if found is None:
            return None
        packet, self._held = found
        if isinstance(packet, SslRequest | GssRequest) and self._tls:
            raise Malformed("a request for encryption within TLS")
        if isinstance(packet, GssRequest):
            if self._gss_asked:
                raise Malformed("a request for GSSAPI encryption twice")
            self._gss_asked = True
        elif isinstance(packet, SslRequest) and self._held:
            # they would pass for what came through TLS (CVE-2021-23214, CVE-2021-23222)
            raise Malformed("bytes in clear behind its request for TLS")
        return packet

    def drop_passwords(self) -> None:
        """Drop password and SASL messages that a driver sends although none is asked for.

        Raises:
            Malformed: one is no message, or there are too many.
        """
        while self._held[:1] == b"p" and len(self._held) >= HEADER_BYTES:
            length = int.from_bytes(self._held[1:HEADER_BYTES], "big", signed=True)
            if not 4 <= length <= FRONTEND[_PASSWORD] + 4:
                raise Malformed("a password message whose length may not be")
            if len(self._held) < 1 + length:
                return
            self._passwords += 1
            if self._passwords > PASSWORD_MESSAGES_MAX:
                raise Malformed("passwords again and again")
            self._held = self._held[1 + length :]
