"""The in-memory TLS engine, both ends."""

import datetime as dt
import os
import ssl
import weakref
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.wire.tls import GIVEN_BYTES, TlsEngine, TlsFailed, TlsFault

NAME = "api.example.com"


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate of its own, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    path: Path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        pem
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    server.set_alpn_protocols(["http/1.1"])
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=pem.decode())
    client.set_alpn_protocols(["h2", "http/1.1"])
    return server, client


def _pair(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], piece: int = 65536
) -> tuple[TlsEngine, TlsEngine]:
    server, client = TlsEngine(contexts[0]), TlsEngine(contexts[1], server_hostname=NAME)
    assert server.start() == b""
    flight = client.start()
    while flight:
        for sender, receiver in ((client, server), (server, client)):
            for at in range(0, len(flight), piece):
                assert receiver.feed(flight[at : at + piece]) == b""
            flight = receiver.outgoing()
            del sender
    assert server.established
    assert client.established
    return server, client


@pytest.mark.parametrize("piece", [1, 100, 65536])
def test_handshake_and_data(contexts: tuple[ssl.SSLContext, ssl.SSLContext], piece: int) -> None:
    """Cut into any pieces, both ends agree, and data arrives whole in both directions."""
    server, client = _pair(contexts, piece)
    assert server.alpn == client.alpn == "http/1.1"
    assert client.version == "TLSv1.3"
    assert client.peer_certificate()
    for sender, receiver in ((client, server), (server, client)):
        data = bytes(range(256)) * 400
        ciphertext = sender.write(data)
        assert b"\x01\x02\x03\x04\x05\x06\x07" not in ciphertext
        cuts = range(0, len(ciphertext), piece)
        got = [receiver.feed(ciphertext[at : at + piece]) for at in cuts]
        assert b"".join(got) == data


def test_data_with_the_handshakes_end(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """Data in the same piece as the handshake's last flight is not lost."""
    server, client = TlsEngine(contexts[0]), TlsEngine(contexts[1], server_hostname=NAME)
    server.feed(client.start())
    client.feed(server.outgoing())
    assert client.established
    assert server.feed(client.outgoing() + client.write(b"hello")) == b"hello"


def test_close_notify(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """A clean end is told apart from a cut one; data before it arrives."""
    server, client = _pair(contexts)
    data = client.write(b"last words") + client.close()
    assert server.feed(data) == b"last words"
    assert server.closed
    server.feed_eof()


def test_truncation(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """An end without close_notify is an error: someone may have cut the stream."""
    server, _ = _pair(contexts)
    with pytest.raises(TlsFailed) as caught:
        server.feed_eof()
    assert caught.value.fault is TlsFault.TRUNCATED


def test_an_end_within_the_handshake(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """A peer that goes away before the handshake is done is a failed handshake."""
    engine = TlsEngine(contexts[1], server_hostname=NAME)
    engine.start()
    with pytest.raises(TlsFailed) as caught:
        engine.feed_eof()
    assert caught.value.fault is TlsFault.HANDSHAKE


@pytest.mark.parametrize("trusted", [True, False])
def test_an_untrusted_peer(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], *, trusted: bool
) -> None:
    """A certificate of another name, or of nobody we trust, is UNTRUSTED, and an alert is due."""
    context = contexts[1] if trusted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server = TlsEngine(contexts[0])
    client = TlsEngine(context, server_hostname="evil.example.com" if trusted else NAME)
    server.feed(client.start())
    with pytest.raises(TlsFailed) as caught:
        client.feed(server.outgoing())
    assert caught.value.fault is TlsFault.UNTRUSTED
    alert = client.outgoing()
    assert alert
    with pytest.raises(TlsFailed) as told:
        server.feed(alert)
    assert told.value.fault is TlsFault.HANDSHAKE


def test_garbage_for_a_handshake(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """Bytes that are no TLS fail the handshake."""
    with pytest.raises(TlsFailed) as caught:
        TlsEngine(contexts[0]).feed(b"GET / HTTP/1.1\r\n\r\n")
    assert caught.value.fault is TlsFault.HANDSHAKE


def test_a_changed_record(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """A record that was changed on the way is a PROTOCOL fault."""
    server, client = _pair(contexts)
    data = bytearray(client.write(b"hello"))
    data[-1] ^= 1
    with pytest.raises(TlsFailed) as caught:
        server.feed(bytes(data))
    assert caught.value.fault is TlsFault.PROTOCOL


def test_close_before_the_handshake(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """Closing what was never established sends nothing."""
    assert TlsEngine(contexts[0]).close() == b""


def test_what_a_discarded_end_held_is_free(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """OpenSSL's part goes at once, while the engine is still referred to."""
    server, client = _pair(contexts)
    for engine in (server, client):
        part = weakref.ref(engine._connection)
        assert part() is not None
        was = engine.established
        engine.discard()
        assert part() is None
        assert engine.established is was
        assert engine.peer_certificate() is None
        engine.discard()  # again is no harm


@pytest.mark.parametrize("size", [GIVEN_BYTES - 1, GIVEN_BYTES, GIVEN_BYTES + 1, 4 * GIVEN_BYTES])
def test_much_at_once_is_all_there(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], size: int
) -> None:
    """What is over GIVEN_BYTES is given to OpenSSL in parts, and is the same, both ways."""
    server, client = _pair(contexts)
    sent = os.urandom(size)
    assert client.feed(server.write(sent)) == sent
    assert server.feed(client.write(sent)) == sent
    ciphertext = server.write(sent) + server.close()
    assert client.feed(ciphertext) == sent
    assert client.closed


def test_a_connection_keeps_little_of_what_went_through(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """256 KiB at once, as asyncio reads them, leave less than 300 KiB on both ends together."""
    pairs = [_pair(contexts) for _ in range(60)]
    block = bytes(256 << 10)
    before = _resident_bytes()
    for server, client in pairs:
        assert len(client.feed(server.write(block))) == len(block)
    assert _resident_bytes() - before < len(pairs) * (300 << 10)


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
