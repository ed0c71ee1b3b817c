"""TLS without sockets: one end over memory BIOs, as server or as client.

Bytes from the peer go in by `feed`, which returns plaintext; `write` returns ciphertext for the
peer. After `start`, `feed` and `close`, `outgoing` has what TLS itself wants to send (handshake,
alerts, key updates). The caller bounds memory by what it feeds: nothing is kept but one record.
"""

import ssl
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum

READ_BYTES = 16 * 1024  # one TLS record: OpenSSL never returns more in one read
GIVEN_BYTES = 64 * 1024  # to OpenSSL at once: its buffers grow to the largest, and stay so


class TlsFault(StrEnum):
    """What went wrong, for the caller to map to a Reason."""

    HANDSHAKE = "handshake"  # no common version, cipher or protocol, or the peer gave up
    UNTRUSTED = "untrusted"  # the peer's certificate did not verify
    TRUNCATED = "truncated"  # the peer ended without close_notify
    PROTOCOL = "protocol"  # a broken record after the handshake


class TlsFailed(Exception):
    """The connection can't go on. `outgoing` may hold an alert that should still be sent.

    Args:
        fault: what went wrong.
        detail: OpenSSL's short words for it ("CERTIFICATE_VERIFY_FAILED"), safe to record.
    """

    def __init__(self, fault: TlsFault, detail: str) -> None:
        super().__init__(f"{fault.value}: {detail}")
        self.fault = fault
        self.detail = detail


class TlsEngine:
    """One end of one TLS connection.

    Args:
        context: shared, made once a trust policy.
        server_hostname: for a client: the name to send and to verify; None makes it a server.
    """

    __slots__ = ("_connection", "_incoming", "_outgoing", "closed", "established")

    def __init__(self, context: ssl.SSLContext, *, server_hostname: str | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._connection = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
        )
        self.established = False  # the handshake is complete
        self.closed = False  # the peer sent close_notify

    def start(self) -> bytes:
        """Begin the handshake; return the client's first flight (nothing for a server).

        Raises:
            TlsFailed: the context can't make one.
        """
        self._handshake()
        return self.outgoing()

    def feed(self, ciphertext: bytes) -> bytes:
        """Take bytes from the peer; return the plaintext in them. Then see `outgoing`.

        Raises:
            TlsFailed: the handshake or a record is refused. Plaintext before it is lost.
        """
        if len(ciphertext) > GIVEN_BYTES:
            return b"".join([self._feed(part) for part in _parts(ciphertext)])
        return self._feed(ciphertext)

    def _feed(self, ciphertext: bytes | memoryview) -> bytes:
        self._incoming.write(ciphertext)
        if not self.established:
            self._handshake()
            if not self.established:
                return b""
        return self._read()

    def feed_eof(self) -> None:
        """Say that the peer's transport ended.

        Raises:
            TlsFailed: TRUNCATED, unless close_notify came before.
        """
        if not self.closed:
            fault = TlsFault.TRUNCATED if self.established else TlsFault.HANDSHAKE
            raise TlsFailed(fault, "the peer ended without close_notify")

    def write(self, plaintext: bytes) -> bytes:
        """Return the ciphertext of all of the plaintext. Only once established.

        Raises:
            TlsFailed: the connection is broken.
        """
        if len(plaintext) > GIVEN_BYTES:
            return b"".join([self._write(part) for part in _parts(plaintext)])
        return self._write(plaintext)

    def _write(self, plaintext: bytes | memoryview) -> bytes:
        if plaintext:
            try:
                self._connection.write(plaintext)
            except ssl.SSLError as error:
                raise TlsFailed(TlsFault.PROTOCOL, _words(error)) from None
        return self._outgoing.read()

    def outgoing(self) -> bytes:
        """Return what TLS itself wants to send."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def close(self) -> bytes:
        """Return close_notify, with what else is pending. Nothing may be written after it."""
        if self.established:
            # WantRead: ours is written and the peer's is not awaited; or it is already broken
            with suppress(ssl.SSLError):
                self._connection.unwrap()
        return self.outgoing()

    def discard(self) -> None:
        """Give back what OpenSSL holds for it (40 KiB and more), whoever still refers to this.

        Nothing may be asked of it any more but `established`, `closed` and `peer_certificate`.
        """
        self._connection, self._incoming, self._outgoing = _OVER

    @property
    def alpn(self) -> str | None:
        """The protocol both ends agreed on."""
        return self._connection.selected_alpn_protocol()

    @property
    def version(self) -> str | None:
        """The TLS version, "TLSv1.3"."""
        return self._connection.version()

    def peer_certificate(self) -> bytes | None:
        """Return the peer's certificate in DER; None once discarded."""
        if self._connection is _OVER[0]:
            return None
        return self._connection.getpeercert(binary_form=True)

    def _handshake(self) -> None:
        try:
            self._connection.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLCertVerificationError as error:
            raise TlsFailed(TlsFault.UNTRUSTED, error.verify_message) from None
        except ssl.SSLError as error:
            raise TlsFailed(TlsFault.HANDSHAKE, _words(error)) from None
        self.established = True

    def _read(self) -> bytes:
        pieces: list[bytes] = []
        incoming, connection = self._incoming, self._connection
        read = connection.read
        try:
            while True:
                piece = read(READ_BYTES)
                if not piece:
                    self.closed = True
                    break
                pieces.append(piece)
                if not incoming.pending and not connection.pending():
                    break  # another read could only raise SSLWantReadError, which costs more
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.closed = True
        except ssl.SSLError as error:
            raise TlsFailed(TlsFault.PROTOCOL, _words(error)) from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _parts(data: bytes) -> Iterator[memoryview]:
    whole = memoryview(data)
    return (whole[at : at + GIVEN_BYTES] for at in range(0, len(data), GIVEN_BYTES))


def _over() -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return context.wrap_bio(incoming, outgoing, server_hostname="over.invalid"), incoming, outgoing


_OVER = _over()  # what a discarded engine has


def _words(error: ssl.SSLError) -> str:
    return error.reason or "TLS failed"
