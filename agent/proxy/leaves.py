"""Leaf certificates of interception: signed by the broker, one key a worker, cached by name.

Only a name that a grant names is ever asked for, so what can be minted is what the policy lists.
"""

import asyncio
import os
import ssl
from collections import OrderedDict
from collections.abc import Callable

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.ipc.endpoint import PeerGone, RequestFailed
from agent.ipc.messages import LeafSigned, SignLeaf
from agent.model.ids import RunId
from agent.proxy.peers import Peers
from agent.runtime.clock import monotonic_ns, unix_ms

LEAVES_MAX = 1_024  # contexts kept; the one unused for longest goes
RENEW_BEFORE_MS = 60 * 60 * 1000  # a leaf with less left is replaced
SIGN_TIMEOUT_S = 5.0
MINTED_A_MINUTE_MAX = 60  # new names for one run in a minute; one past it gets no certificate
RUNS_COUNTED_MAX = 4_096
MINUTE_NS = 60_000_000_000
Wanted = tuple[str, tuple[str, ...], bool]  # the name, protocols in our order, and `strict`


def load_chain(context: ssl.SSLContext, pem: bytes) -> None:
    """Give a context its key and certificates: load_cert_chain reads files; this has no name.

    Raises:
        ssl.SSLError: they are of no use.
    """
    descriptor = os.memfd_create("chain", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _names(name: str) -> Callable[[object, str | None, object], int | None]:
    """Refuse a handshake that asks for another name; without SNI the flow's address decides."""

    def check(_sock: object, asked: str | None, _context: object) -> int | None:
        if asked is None or asked.lower().removesuffix(".") == name:
            return None
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    return check


class NoLeaf(Exception):
    """There is no certificate; the text is safe to record."""


class Leaves:
    """Server contexts by name."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        key = ec.generate_private_key(ec.SECP256R1())
        self._public_der = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._key_pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self._contexts: OrderedDict[Wanted, tuple[ssl.SSLContext, int]] = OrderedDict()
        self._minting: dict[Wanted, asyncio.Task[ssl.SSLContext]] = {}
        self._minted: OrderedDict[RunId, tuple[int, int]] = OrderedDict()

    def ready(
        self, name: str, alpn: tuple[str, ...], *, strict: bool = True
    ) -> ssl.SSLContext | None:
        """Return the context of a name when there is a fresh one.

        strict: whether it refuses a handshake that asks for another name. Where it does not, the
        relay answers, under the certificate of this name, that it is another.
        """
        entry = self._contexts.get((name, alpn, strict))
        if entry is None or entry[1] - unix_ms() < RENEW_BEFORE_MS:
            return None
        self._contexts.move_to_end((name, alpn, strict))
        return entry[0]

    async def mint(
        self, name: str, alpn: tuple[str, ...], run_id: RunId, *, strict: bool = True
    ) -> ssl.SSLContext:
        """Have a leaf signed, once for all who ask meanwhile.

        Raises:
            NoLeaf: the broker refuses or is away, or the run asked for too many names.
        """
        wanted = (name, alpn, strict)
        task = self._minting.get(wanted)
        if task is None:
            self._count(run_id)
            task = asyncio.get_running_loop().create_task(self._mint(wanted))
            self._minting[wanted] = task
            task.add_done_callback(lambda _: self._minting.pop(wanted, None))
        return await asyncio.shield(task)

    async def _mint(self, wanted: Wanted) -> ssl.SSLContext:
        name, alpn, strict = wanted
        try:
            signed = await self._peers.require_broker().request(
                SignLeaf(name, self._public_der), LeafSigned, timeout_s=SIGN_TIMEOUT_S
            )
            context = self._context(signed.chain_pem, alpn)
            if strict:
                context.sni_callback = _names(name)
        except RequestFailed as error:
            raise NoLeaf(f"the broker signs no certificate: {error}") from error
        except (PeerGone, TimeoutError) as error:
            raise NoLeaf("the broker does not answer") from error
        except ssl.SSLError as error:
            raise NoLeaf("the broker's certificate is of no use") from error
        self._contexts[wanted] = (context, signed.not_after_ms)
        self._contexts.move_to_end(wanted)
        if len(self._contexts) > LEAVES_MAX:
            self._contexts.popitem(last=False)
        return context

    def _context(self, chain_pem: bytes, alpn: tuple[str, ...]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        context.num_tickets = 0  # no session outlives its connection
        context.set_alpn_protocols(alpn)
        load_chain(context, self._key_pem + chain_pem)
        return context

    def _count(self, run_id: RunId) -> None:
        now_ns = monotonic_ns()
        since_ns, count = self._minted.get(run_id, (now_ns, 0))
        if now_ns - since_ns >= MINUTE_NS:
            since_ns, count = now_ns, 0
        if count >= MINTED_A_MINUTE_MAX:
            raise NoLeaf(f"the run asked for more than {MINTED_A_MINUTE_MAX} names in a minute")
        self._minted[run_id] = (since_ns, count + 1)
        self._minted.move_to_end(run_id)
        if len(self._minted) > RUNS_COUNTED_MAX:
            self._minted.popitem(last=False)
