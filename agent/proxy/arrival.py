"""From an accepted socket to a session that is served: whose is it, and what for?"""

import asyncio
import contextlib
import logging
import socket
from collections import OrderedDict
from dataclasses import dataclass, field

from agent.ipc.endpoint import PeerGone, RequestFailed
from agent.ipc.messages import Attribute, Attributed, Authorize, Authorized, SessionEnded
from agent.model.audit import SessionClosed, SessionRefused
from agent.model.flow import Attribution, Endpoint, Unattributed
from agent.model.grant import Grant
from agent.model.ids import SessionId
from agent.model.reason import Reason
from agent.proxy.accept import original_destination, reset
from agent.proxy.greeting import Greeting
from agent.proxy.services import Services
from agent.proxy.session import Session, State
from agent.proxy.sessions import Arriving
from agent.proxy.turns import Crowded, Turns
from agent.runtime.clock import fresh_ulid, monotonic_ns

ATTRIBUTE_TIMEOUT_S = 5.0
AUTHORIZE_TIMEOUT_S = 10.0
GRANTS_KEPT_MAX = 256  # as many as the policy keeps compiled; the one unused for longest goes

logger = logging.getLogger(__name__)


class Refused(Exception):
    """The connection is nobody's, or cannot be served: reset, and recorded."""

    def __init__(self, reason: Reason, detail: str, session_id: SessionId | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.announced = session_id is not None  # the broker knows of it
        self.flow = Unattributed(session_id or SessionId(fresh_ulid()), detail)


class ClosedAtOnce(Exception):
    """The broker opened the session, and it may not be served: it is closed, and so recorded."""


class SharedGrants:
    """Equal grants as one object: what the policy compiles of a grant is kept by identity."""

    def __init__(self) -> None:
        self._grants: OrderedDict[Grant, Grant] = OrderedDict()

    def share(self, grant: Grant) -> Grant:
        """Return the first of the equal ones."""
        kept = self._grants.setdefault(grant, grant)
        self._grants.move_to_end(kept)
        if len(self._grants) > GRANTS_KEPT_MAX:
            self._grants.popitem(last=False)
        return kept


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Serves accepted sockets."""

    services: Services
    grants: SharedGrants = field(default_factory=SharedGrants)
    turns: Turns = field(default_factory=Turns)

    async def serve(self, sock: socket.socket) -> None:
        """Find out whose the connection is, and hand it to a greeting or reset it."""
        try:
            attribution = await self._attribute(sock)
            session = await self._authorize(attribution)
        except Refused as refusal:
            self.services.recorder.record(SessionRefused(refusal.flow, refusal.reason))
            if refusal.announced:
                self._forget(refusal.flow.session_id)
            reset(sock)
            return
        except ClosedAtOnce as error:
            logger.info("a session was closed as it began: %s", error)
            reset(sock)
            return
        except BaseException:
            reset(sock)
            raise
        await self._begin(sock, *session)

    async def _attribute(self, sock: socket.socket) -> Attribution:
        destination = original_destination(sock)
        if destination is None:
            raise Refused(Reason.UNATTRIBUTED, "connected to our own listener directly")
        mark = sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)
        question = Attribute(mark, destination.address, destination.port)
        try:
            answer = await self.services.peers.kernel.request(
                question, Attributed, timeout_s=ATTRIBUTE_TIMEOUT_S
            )
        except RequestFailed as error:
            detail = f"{destination}: {error.failed.detail}"
            raise Refused(Reason.UNATTRIBUTED, detail) from error
        except TimeoutError as error:
            raise Refused(Reason.UNATTRIBUTED, f"{destination}: no answer") from error
        except PeerGone as error:
            raise Refused(Reason.UNATTRIBUTED, f"{destination}: kernel is gone") from error
        return _own(answer, destination)

    async def _authorize(self, attribution: Attribution) -> tuple[Session, Authorized]:
        session_id = attribution.session_id
        if not self.services.sessions.has_room(attribution.run_id):
            raise Refused(Reason.OVERLOADED, "the run has too many connections", session_id)
        with self.services.sessions.arriving(attribution.run_id) as arriving:
            answer = await self._ask_in_turn(attribution, arriving)
        grant = answer.grant
        session = Session(attribution, answer.loop, None, monotonic_ns())
        if arriving.cut is not None:
            # the answer is from before the cut: what it allows is over
            self.services.sessions.never_served(session, arriving.cut)
            raise ClosedAtOnce("the run was cut as it connected")
        if grant is not None and (grant.run_id, grant.loop) != (attribution.run_id, answer.loop):
            self.services.sessions.never_served(session, Reason.INTERNAL)
            raise ClosedAtOnce("the grant is another run's")
        if grant is not None:
            session.grant = self.grants.share(grant)
        session.become(State.AUTHORIZED)
        return session, answer

    async def _ask_in_turn(self, attribution: Attribution, arriving: Arriving) -> Authorized:
        session_id = attribution.session_id
        try:
            async with self.turns.turn(attribution.run_id):
                if arriving.cut is not None:  # before the broker opened it
                    raise Refused(arriving.cut, "cut as it connected", session_id)
                return await self._ask(session_id)
        except Crowded as error:
            raise Refused(Reason.OVERLOADED, str(error), session_id) from error

    async def _ask(self, session_id: SessionId) -> Authorized:
        try:
            return await self.services.peers.require_broker().request(
                Authorize(session_id), Authorized, timeout_s=AUTHORIZE_TIMEOUT_S
            )
        except RequestFailed as error:
            raise Refused(error.failed.reason, error.failed.detail, session_id) from error
        except (PeerGone, TimeoutError) as error:
            # it may have opened the session before it fell silent
            self.services.recorder.record(SessionClosed(session_id, Reason.INTERNAL, 0, 0, 0, 0))
            raise Refused(Reason.INTERNAL, "the broker does not answer", session_id) from error

    def _forget(self, session_id: SessionId) -> None:
        """Have the broker forget what kernel announced to it and nobody serves."""
        broker = self.services.peers.broker
        if broker is not None:
            with contextlib.suppress(PeerGone):  # it has forgotten all of them
                broker.notify(SessionEnded(session_id))

    async def _begin(self, sock: socket.socket, session: Session, answer: Authorized) -> None:
        """Serve a session, which the broker has recorded and which is closed exactly once."""
        greeting = Greeting(self.services, session, answer)
        self.services.sessions.opened(greeting)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: greeting, sock)
        except OSError:
            sock.close()
            self.services.sessions.closed(greeting, Reason.DOWNSTREAM_CLOSED)


def _own(answer: Attributed, destination: Endpoint) -> Attribution:
    """Return the attribution, if it is one and of this flow.

    Raises:
        Refused: it is not.
    """
    attribution = answer.attribution
    if attribution is None:
        flow = answer.unattributed
        if flow is None:
            raise Refused(Reason.UNATTRIBUTED, f"{destination}: an empty answer")
        raise Refused(Reason.UNATTRIBUTED, flow.detail, flow.session_id)
    if attribution.destination != destination:
        detail = f"{destination}: recorded as {attribution.destination}"
        raise Refused(Reason.DESTINATION_MISMATCH, detail, attribution.session_id)
    return attribution
