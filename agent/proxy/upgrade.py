"""From clear text to TLS on a connection that is in use (STARTTLS in any protocol's words)."""

from collections.abc import Callable

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from agent.model.ids import RunId
from agent.proxy.channel import NOBODY, Channel, Owner
from agent.proxy.leaves import Leaves
from agent.proxy.secure import SecureChannel
from agent.wire.side import Side
from agent.wire.tls import TlsEngine


async def secure_downstream(
    leaves: Leaves,
    name: str,
    alpn: tuple[str, ...],
    run_id: RunId,
    owner: Owner,
    on_secured: Callable[[], None],
) -> SecureChannel:
    """Return a server's end for this name, not connected yet.

    Raises:
        NoLeaf: there is no certificate.
    """
    context = leaves.ready(name, alpn)
    if context is None:
        context = await leaves.mint(name, alpn, run_id)
    return SecureChannel(Side.DOWNSTREAM, owner, TlsEngine(context), on_secured)


def hand_over(clear: Channel, channel: Channel) -> None:
    """Give a connection that is held to another channel, which reads from here on."""
    transport = clear.transport
    clear.owner = NOBODY
    if transport is None or clear.has_ended:
        channel.connection_lost(None)
        return
    transport.set_protocol(channel)
    channel.adopt(transport)
    transport.resume_reading()


def server_end_point(channel: Channel) -> bytes | None:
    """Return the tls-server-end-point binding of the peer's certificate (RFC 5929 section 4.1).

    None where it is not defined: no TLS, or a signature without a hash function of its own.
    """
    if not isinstance(channel, SecureChannel):
        return None
    der = channel.peer_certificate()
    if der is None:
        return None
    try:
        algorithm = x509.load_der_x509_certificate(der).signature_hash_algorithm
    except (UnsupportedAlgorithm, ValueError):
        return None
    if algorithm is None:
        return None
    weak = isinstance(algorithm, hashes.MD5 | hashes.SHA1)
    digest = hashes.Hash(hashes.SHA256() if weak else algorithm)
    digest.update(der)
    return digest.finalize()
