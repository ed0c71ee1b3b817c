"""Whom upstream certificates are verified against: the system's roots, or a target's own CA."""

import ssl
from collections import OrderedDict

CONTEXTS_MAX = 256  # of distinct CAs; the one unused for longest is made anew when needed
ALPN = ("http/1.1",)


class Trust:
    """Client contexts by CA. Making one for the system's roots costs about 20 ms, once."""

    def __init__(self) -> None:
        self._contexts: OrderedDict[str, ssl.SSLContext] = OrderedDict()

    def context(self, ca_pem: str) -> ssl.SSLContext:
        """Return the context that verifies chain, name and validity, with TLS 1.2 or later.

        Raises:
            ssl.SSLError: ca_pem has no certificates.
        """
        context = self._contexts.get(ca_pem)
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and host name
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.options |= ssl.OP_NO_RENEGOTIATION  # what was verified once stays so
            context.set_alpn_protocols(ALPN)
            if ca_pem:
                context.load_verify_locations(cadata=ca_pem)
            else:
                context.load_default_certs(ssl.Purpose.SERVER_AUTH)
            self._contexts[ca_pem] = context
            if len(self._contexts) > CONTEXTS_MAX:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(ca_pem)
        return context
