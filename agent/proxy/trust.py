"""Whom upstream certificates are verified against: the system's roots, or a target's own CA."""

import os
import ssl
from collections import OrderedDict
from collections.abc import Callable

from agent.model.credential import ClientCertificate
from agent.proxy.leaves import load_chain
from agent.runtime.clock import monotonic_ns

ROOTS_LOOK_NS = 60_000_000_000
CONTEXTS_MAX = 256  # of distinct CAs; the one unused for longest is made anew when needed


class Trust:
    """Client contexts by CA. Making one for the system's roots costs about 20 ms.

    The host's roots are replaced while a worker lives, one that is no longer trusted taken out:
    they are looked at every ROOTS_LOOK_NS, and read anew when they changed.
    """

    def __init__(self, clock_ns: Callable[[], int] = monotonic_ns) -> None:
        self._contexts: OrderedDict[tuple[str, tuple[str, ...]], ssl.SSLContext] = OrderedDict()
        self._clock_ns = clock_ns
        self._roots = _roots_stamp()
        self._looked_ns = clock_ns()

    def context(self, ca_pem: str, alpn: tuple[str, ...]) -> ssl.SSLContext:
        """Return the context that verifies chain, name and validity, with TLS 1.2 or later.

        Raises:
            ssl.SSLError: ca_pem has no certificates.
        """
        if not ca_pem and self._clock_ns() - self._looked_ns >= ROOTS_LOOK_NS:
            self._look()
        key = (ca_pem, alpn)
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = _context(ca_pem, alpn)
            if len(self._contexts) > CONTEXTS_MAX:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(key)
        return context

    def _look(self) -> None:
        self._looked_ns = self._clock_ns()
        roots = _roots_stamp()
        if roots != self._roots:
            self._roots = roots
            for key in [key for key in self._contexts if not key[0]]:
                del self._contexts[key]


def context_with(
    certificate: ClientCertificate, ca_pem: str, alpn: tuple[str, ...]
) -> ssl.SSLContext:
    """Return a context of one lease's own, which shows its certificate; it is kept with the key.

    Raises:
        ssl.SSLError: ca_pem has no certificates, or the chain and key are of no use.
    """
    chain = certificate.chain_pem

    def made(key: bytes) -> ssl.SSLContext:
        context = _context(ca_pem, alpn)
        load_chain(context, key + b"\n" + chain.encode())  # a secret has no line end of its own
        return context

    return certificate.key_pem.derive(("tls", chain, ca_pem, alpn, _roots_stamp()), made)


def _roots_stamp() -> tuple[tuple[int, int, int], ...]:
    """Return what changes when the host's roots are replaced (a CApath's entries are read late)."""
    paths = ssl.get_default_verify_paths()
    stamp = []
    for path in (paths.cafile, paths.capath):
        try:
            state = os.stat(path or "")
        except OSError:
            continue
        stamp.append((state.st_ino, state.st_mtime_ns, state.st_size))
    return tuple(stamp)


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
