"""Whom upstream certificates are verified against: the system's roots, or a target's own CA."""

import ssl
from collections import OrderedDict

from agent.model.credential import ClientCertificate
from agent.proxy.leaves import load_chain

CONTEXTS_MAX = 256  # of distinct CAs; the one unused for longest is made anew when needed


class Trust:
    """Client contexts by CA. Making one for the system's roots costs about 20 ms, once."""

    def __init__(self) -> None:
        self._contexts: OrderedDict[tuple[str, tuple[str, ...]], ssl.SSLContext] = OrderedDict()

    def context(self, ca_pem: str, alpn: tuple[str, ...]) -> ssl.SSLContext:
        """Return the context that verifies chain, name and validity, with TLS 1.2 or later.

        Raises:
            ssl.SSLError: ca_pem has no certificates.
        """
        key = (ca_pem, alpn)
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = _context(ca_pem, alpn)
            if len(self._contexts) > CONTEXTS_MAX:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(key)
        return context


def context_with(
    certificate: ClientCertificate, ca_pem: str, alpn: tuple[str, ...]
) -> ssl.SSLContext:
    """Return a context of one lease's own, which shows its certificate.

    Raises:
        ssl.SSLError: ca_pem has no certificates, or the chain and key are of no use.
    """
    context = _context(ca_pem, alpn)
    load_chain(context, certificate.key_pem.reveal() + certificate.chain_pem.encode())
    return context


def _context(ca_pem: str, alpn: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # what was verified once stays so
    context.set_alpn_protocols(alpn)
    if ca_pem:
        context.load_verify_locations(cadata=ca_pem)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context
