"""What a worker may ask: the grant, the lease and the leaf of its own live sessions."""

import datetime as dt
import logging
from collections.abc import Awaitable
from typing import assert_never

import msgspec

from agent.broker import grants, openings, stops
from agent.broker.api import Parts
from agent.broker.ca import LeafRefused
from agent.broker.leases import LeaseFailed
from agent.broker.sessions import OPEN_A_RUN_MAX, Session
from agent.ipc.endpoint import Received
from agent.ipc.messages import (
    AskStopped,
    Authorize,
    Authorized,
    Failed,
    LeafSigned,
    LeaseTaken,
    Message,
    SessionEnded,
    SignLeaf,
    TakeLease,
)
from agent.model.credential import (
    AwsKeys,
    Basic,
    Bearer,
    ClientCertificate,
    Credential,
    Header,
    Password,
    QueryParameter,
    Shape,
    SshCertificate,
)
from agent.model.flow import Evidence
from agent.model.ids import SessionId
from agent.model.lease import Lease
from agent.model.loop import RunState
from agent.model.reason import Reason
from agent.policy.compile import compile_target

logger = logging.getLogger(__name__)


def receive(parts: Parts, worker: str, received: Received) -> Awaitable[None] | None:
    """Answer a worker's message."""
    received.close_fds()
    match received.message:
        case Authorize(session_id):
            return _answer(received, authorize(parts, worker, session_id))
        case TakeLease(session_id):
            return _answer(received, take_lease(parts, worker, session_id))
        case SignLeaf() as wanted:
            received.reply(sign_leaf(parts, wanted))
        case AskStopped(session_id, name):
            return _answer(received, stops.ask_others(parts, worker, session_id, name))
        case SessionEnded(session_id):
            parts.sessions.ended(worker, session_id)
            parts.leases.users.ended(worker, session_id)
        case other:
            logger.error("%s sent %s", worker, type(other).__name__)
    return None


async def _answer(received: Received, reply: Awaitable[Message]) -> None:
    received.reply(await reply)


async def authorize(parts: Parts, worker: str, session_id: SessionId) -> Message:
    """Return Authorized for a session that kernel announced for this worker, once recorded."""
    session = await parts.sessions.wait(worker, session_id)
    if session is None:
        return Failed(Reason.UNATTRIBUTED, "this connection is not known")
    if session.opened:
        return Failed(Reason.INTERNAL, "this session was opened before")
    if not parts.sessions.open(session):
        parts.sessions.ended(worker, session_id)
        return Failed(Reason.OVERLOADED, f"the run has {OPEN_A_RUN_MAX} connections open")
    return await openings.opened(parts, worker, session, _grant(parts, session))


def _grant(parts: Parts, session: Session) -> Authorized:
    attribution = session.attribution
    if attribution.evidence is not Evidence.TAG_AND_CGROUP:
        alarm, _ = grants.ALARM_OF[attribution.evidence]
        process = attribution.process
        detail = f"pid {process.pid} ({process.exe or process.comm}) opened a connection"
        parts.recorder.alarm(alarm, detail, attribution.run_id)
    live = parts.loops.find(attribution.run_id)
    if live is None:
        return grants.authorize(parts.policies, attribution, None, RunState.ENDED, 0)
    answer = grants.authorize(parts.policies, attribution, live.run, live.state, live.expires_ms)
    session.grant = answer.grant
    if answer.grant is None:
        return answer
    key = parts.run_keys.of(attribution.run_id, answer.grant.target.name)
    return msgspec.structs.replace(answer, run_key=key)


async def take_lease(parts: Parts, worker: str, session_id: SessionId) -> Message:
    """Return the lease of an authorized session of this worker, or Failed."""
    session = parts.sessions.find(worker, session_id)
    if session is None or not grants.needs_lease(session.grant):
        return Failed(Reason.LEASE_REFUSED, "this session may take no lease")
    attribution = session.attribution
    live = parts.loops.find(attribution.run_id)
    if live is None or live.state is RunState.REVOKED or live.finishing is not None:
        return Failed(Reason.RUN_REVOKED, "the run has ended")
    if attribution.evidence is not Evidence.TAG_AND_CGROUP or session.grant is None:
        return Failed(Reason.LEASE_REFUSED, "this session may take no lease")
    target = parts.policies.policy.targets.get(session.grant.target.name)
    # a changed target is cut, but the cut may still be on its way
    if target is None or compile_target(target, parts.policies.synthetic) != session.grant.target:
        return Failed(Reason.POLICY_CHANGED, "the policy changed: connect again")
    try:
        run = live.run
        lease = await parts.leases.take(run.run_id, run.loop, target, run.initiator.uid, live.token)
    except LeaseFailed as error:
        return Failed(Reason.LEASE_REFUSED, str(error)[:1024])
    if parts.sessions.find(worker, session_id) is not session:
        return Failed(Reason.LEASE_REFUSED, "the session has ended")
    parts.leases.users.took(lease.lease_id, worker, session_id)
    return lease_taken(lease)


def lease_taken(lease: Lease) -> LeaseTaken:
    """Return the message that carries a lease to its worker."""
    shape, parts = _parts(lease.credential)
    return LeaseTaken(
        lease.lease_id,
        lease.run_id,
        lease.target,
        shape.value,
        parts,
        lease.expires_ms,
        lease.revocable,
    )


def sign_leaf(parts: Parts, wanted: SignLeaf) -> Message:
    """Return a leaf for the worker's key, if the name is a TLS target's."""
    try:
        chain, not_after_ms = parts.ca.sign(
            wanted.name, wanted.public_key_der, parts.policies.tls_names, dt.datetime.now(dt.UTC)
        )
    except LeafRefused as error:
        return Failed(Reason.TLS_FAILED, str(error))
    return LeafSigned(chain, not_after_ms)


def _parts(credential: Credential) -> tuple[Shape, tuple[bytes, ...]]:
    match credential:
        case Bearer(token):
            return Shape.BEARER, (token.reveal(),)
        case Basic(user, password):
            return Shape.BASIC, (user.encode(), password.reveal())
        case Header(name, value):
            return Shape.HEADER, (name.encode(), value.reveal())
        case QueryParameter(name, value):
            return Shape.QUERY_PARAMETER, (name.encode(), value.reveal())
        case Password(user, password):
            return Shape.PASSWORD, (user.encode(), password.reveal())
        case ClientCertificate(user, chain_pem, key_pem):
            return Shape.CLIENT_CERTIFICATE, (user.encode(), chain_pem.encode(), key_pem.reveal())
        case AwsKeys(key_id, secret, token):
            last = b"" if token is None else token.reveal()
            return Shape.AWS_KEYS, (key_id.reveal(), secret.reveal(), last)
        case SshCertificate(user, certificate, key_pem):
            return Shape.SSH_CERTIFICATE, (user.encode(), certificate.encode(), key_pem.reveal())
        case _:
            assert_never(credential)
