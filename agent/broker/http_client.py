"""HTTP requests of providers: verified, bounded in time and size, never a secret in an error.

One connection a request: it can't be another's, and nothing is left open. h11 reads and writes
HTTP/1.1 (RFC 9112); what it can't read is no answer. The environment's proxies, redirections and
cookies are nobody's business here.
"""

import asyncio
import collections
import email.utils
import ipaddress
import ssl
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import h11

from agent.broker.files import Untrusted, read_public
from agent.credentials.spec import (
    HTTP_HEADER_BYTES_MAX,
    HTTP_S,
    SECRET_BYTES_MAX,
    CredentialError,
    HttpReply,
    HttpRequest,
)
from agent.model.secret import Secret

CA_BYTES_MAX = 1 << 20
CONTEXTS_MAX = 16
REPLY_BYTES_MAX = 4 * (HTTP_HEADER_BYTES_MAX + SECRET_BYTES_MAX)  # with chunk heads and 1xx
URL_CHARACTERS_MAX = 4_096
PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class _Address:
    tls: bool
    host: str
    port: int
    path: str  # and query

    @property
    def name(self) -> str:
        """HOST:PORT, for people."""
        return f"{self._literal}:{self.port}"

    @property
    def field(self) -> str:
        """The Host field's value."""
        usual = PORTS["https" if self.tls else "http"]
        return self._literal if self.port == usual else self.name

    @property
    def _literal(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


class Http:
    """All requests of the broker; see Client.http."""

    def __init__(self) -> None:
        self._contexts: collections.OrderedDict[str, ssl.SSLContext] = collections.OrderedDict()

    async def request(
        self, request: HttpRequest, body_bytes_max: int = SECRET_BYTES_MAX
    ) -> HttpReply:
        """Send it, and return the answer; its body is at most so long.

        Raises:
            CredentialError: see Client.http.
        """
        address = _address(request)
        context = self._context(request.ca) if address.tls else None
        within_s = min(request.within_s, HTTP_S)
        exchange = _Exchange(address, _head(request, address), request.body, body_bytes_max)
        try:
            async with asyncio.timeout(within_s):
                await asyncio.get_running_loop().create_connection(
                    lambda: exchange,
                    address.host,
                    address.port,
                    ssl=context,
                    server_hostname=address.host if address.tls else None,
                )
                return await exchange.reply
        except TimeoutError:
            text = f"{address.name} did not answer within {within_s:.3g} s"
            raise CredentialError(text, transient=True, nothing_made=not exchange.sent) from None
        except ssl.SSLCertVerificationError as error:
            text = f"{address.name} is not {address.host}: {error.verify_message}"
            raise CredentialError(text, nothing_made=True) from None
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise CredentialError(
                f"{address.name}: {why}", transient=True, nothing_made=not exchange.sent
            ) from None
        finally:
            exchange.end()

    def _context(self, ca: str) -> ssl.SSLContext:
        """Return what verifies a server; made once for the same roots (it takes milliseconds)."""
        pem = _pem(ca) if ca else ""
        context = self._contexts.get(pem)
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            try:
                if pem:
                    context.load_verify_locations(cadata=pem)
                else:
                    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
            except ssl.SSLError as error:
                text = f"the CA file {ca}: {error.reason}"
                raise CredentialError(text, nothing_made=True) from error
            self._contexts[pem] = context
            if len(self._contexts) > CONTEXTS_MAX:
                self._contexts.popitem(last=False)
        return context


class _Exchange(asyncio.Protocol):
    """One request and its answer."""

    def __init__(
        self, address: _Address, head: h11.Request, body: Secret | None, body_bytes_max: int
    ) -> None:
        self._name = address.name
        self._head = head
        self._body = body
        self._wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=HTTP_HEADER_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._answer: h11.Response | None = None
        self._content = bytearray()
        self._received = 0
        self._body_bytes_max = body_bytes_max
        self._received_max = REPLY_BYTES_MAX + 4 * (body_bytes_max - SECRET_BYTES_MAX)
        self.reply: asyncio.Future[HttpReply] = asyncio.get_running_loop().create_future()
        self.sent = False  # something of it may have arrived

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of no class of asyncio
        data = self._wire.send(self._head) or b""
        if self._body is not None:
            data += self._wire.send(h11.Data(data=self._body.reveal())) or b""
        data += self._wire.send(h11.EndOfMessage()) or b""
        self.sent = True
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.reply.done():
            return
        self._received += len(data)
        if self._received > self._received_max:
            self._fail(f"{self._name} sends more than {self._received_max} bytes")
            return
        self._read(data)

    def eof_received(self) -> None:
        """See asyncio.Protocol."""
        if not self.reply.done():
            self._read(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        del exc  # of TLS it may quote bytes
        self._fail(f"{self._name} closed the connection without an answer")

    def end(self) -> None:
        """Let go of the connection, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()
        if not self.reply.done():
            self.reply.cancel()
        elif not self.reply.cancelled():
            self.reply.exception()  # somebody heard of it, or was cut off before

    def _read(self, data: bytes) -> None:
        try:
            self._wire.receive_data(data)
            while not self.reply.done():
                event = self._wire.next_event()
                match event:
                    case h11.Response():
                        self._began(event)
                    case h11.Data():
                        self._content += event.data
                        if len(self._content) > self._body_bytes_max:
                            size = f"more than {self._body_bytes_max} bytes"
                            self._fail(f"{self._name} sends a body of {size}")
                    case h11.EndOfMessage():
                        self._finish()
                    case h11.ConnectionClosed():
                        self._fail(f"{self._name} closed the connection without an answer")
                    case h11.InformationalResponse():
                        continue
                    case _:  # NEED_DATA
                        return
        except h11.RemoteProtocolError:  # its text may quote the server
            self._fail(f"{self._name} does not talk as an HTTP/1.1 server does")

    def _began(self, answer: h11.Response) -> None:
        """h11 bounds only what it has to wait for the rest of."""
        self._answer = answer
        if sum(len(name) + len(value) for name, value in answer.headers) > HTTP_HEADER_BYTES_MAX:
            self._fail(f"{self._name} sends fields of more than {HTTP_HEADER_BYTES_MAX} bytes")

    def _finish(self) -> None:
        answer = self._answer
        assert answer is not None
        headers = tuple(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers
        )
        reply = HttpReply(
            answer.status_code, headers, Secret(bytes(self._content)), _date_ms(headers)
        )
        if reply.header("content-encoding") not in {"", "identity"}:
            self._fail(f"{self._name} compresses, which it was not asked to")
        else:
            self.reply.set_result(reply)

    def _fail(self, text: str) -> None:
        if not self.reply.done():
            self.reply.set_exception(
                CredentialError(text, transient=True, nothing_made=not self.sent)
            )


def _address(request: HttpRequest) -> _Address:
    text = "a provider's URL is https://HOST[:PORT]/PATH"
    if len(request.url) > URL_CHARACTERS_MAX:
        raise CredentialError(
            f"a URL of more than {URL_CHARACTERS_MAX} characters", nothing_made=True
        )
    try:
        parts = urlsplit(request.url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise CredentialError(text, nothing_made=True) from None
    graphic = all("!" <= letter <= "~" for letter in request.url)
    bare = parts.username is None and parts.password is None and not parts.fragment
    if parts.scheme not in PORTS or not host or not graphic or not bare:
        raise CredentialError(text, nothing_made=True)
    tls = parts.scheme == "https"
    if not tls and not request.allow_cleartext and not _is_loopback(host):
        raise CredentialError(
            f"{host}: a secret goes in clear to a loopback address alone; write https://, or allow "
            "it (anyone on the way can then read it)",
            nothing_made=True,
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Address(tls, host, PORTS[parts.scheme] if port is None else port, path)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name may be anybody's


def _head(request: HttpRequest, address: _Address) -> h11.Request:
    fields = [
        (b"Host", address.field.encode()),
        (b"User-Agent", b"loopwarden"),
        (b"Accept-Encoding", b"identity"),
        (b"Connection", b"close"),
    ]
    for name, value in request.headers.items():
        raw = value.reveal() if isinstance(value, Secret) else value.encode("ascii", "replace")
        fields.append((name.encode(), raw))
    if request.body is not None:
        fields.append((b"Content-Length", str(len(request.body.reveal())).encode()))
    try:
        return h11.Request(method=request.method, target=address.path, headers=fields)
    except h11.LocalProtocolError:  # its text quotes the value
        text = "a token has characters that no HTTP field may carry: is it the right file?"
        raise CredentialError(text, nothing_made=True) from None


def _pem(path: str) -> str:
    try:
        return read_public(path, CA_BYTES_MAX).decode("ascii", "replace")
    except Untrusted as error:
        raise CredentialError(f"the CA file {path}: {error}", nothing_made=True) from error
    except OSError as error:
        text = f"the CA file {path}: {error.strerror}"
        raise CredentialError(text, transient=True, nothing_made=True) from error


def _date_ms(headers: tuple[tuple[str, str], ...]) -> int:
    text = next((value for name, value in headers if name == "date"), "")
    try:
        return int(email.utils.parsedate_to_datetime(text).timestamp() * 1000)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0
