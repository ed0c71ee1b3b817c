"""Taking a session's credential from the broker."""

from typing import assert_never

from agent.ipc.endpoint import PeerGone, RequestFailed
from agent.ipc.messages import LeaseTaken, TakeLease
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
from agent.model.lease import Lease
from agent.model.secret import Secret
from agent.proxy.peers import Peers
from agent.proxy.session import Session
from agent.wire.events import LeaseRefused

LEASE_TIMEOUT_S = 30.0
PARTS = {  # others have two
    Shape.BEARER: 1,
    Shape.CLIENT_CERTIFICATE: 3,
    Shape.AWS_KEYS: 3,
    Shape.SSH_CERTIFICATE: 3,
}


def credential_of(shape: Shape, parts: tuple[bytes, ...]) -> Credential:
    """Rebuild a credential from what crossed.

    Raises:
        ValueError: not the parts of that shape.
    """
    if len(parts) != PARTS.get(shape, 2):
        raise ValueError(f"{len(parts)} parts are no {shape}")
    secret = Secret(parts[-1])
    match shape:
        case Shape.BEARER:
            return Bearer(secret)
        case Shape.BASIC:
            return Basic(parts[0].decode(), secret)
        case Shape.HEADER:
            return Header(parts[0].decode(), secret)
        case Shape.QUERY_PARAMETER:
            return QueryParameter(parts[0].decode(), secret)
        case Shape.PASSWORD:
            return Password(parts[0].decode(), secret)
        case Shape.CLIENT_CERTIFICATE:
            return ClientCertificate(parts[0].decode(), parts[1].decode(), secret)
        case Shape.AWS_KEYS:
            token = secret if parts[2] else None
            return AwsKeys(Secret(parts[0]), Secret(parts[1]), token)
        case Shape.SSH_CERTIFICATE:
            return SshCertificate(parts[0].decode(), parts[1].decode(), secret)
        case _:
            assert_never(shape)


async def take_lease(
    peers: Peers, session: Session, accepts: tuple[Shape, ...]
) -> Lease | LeaseRefused:
    """Ask once. A lease that is not this session's own, or of a shape unasked for, is refused.

    Injection needs both kernel facts, so a flow with one of them is refused here as well as by
    the broker.
    """
    if session.attribution.evidence is not Evidence.TAG_AND_CGROUP or session.grant is None:
        return LeaseRefused("the connection is not proven to be the run's")
    try:
        taken = await peers.require_broker().request(
            TakeLease(session.session_id), LeaseTaken, timeout_s=LEASE_TIMEOUT_S
        )
        shape = Shape(taken.shape)
        credential = credential_of(shape, taken.parts)
    except RequestFailed as error:
        return LeaseRefused(error.failed.detail)
    except (PeerGone, TimeoutError):
        return LeaseRefused("the broker does not answer")
    except ValueError:
        return LeaseRefused("the credential is of no known shape")
    if (taken.run_id, taken.target) != (session.run_id, session.grant.target.name):
        return LeaseRefused("the lease is of another run or target")
    if shape not in accepts:
        return LeaseRefused(f"the protocol cannot use a credential of shape {shape}")
    if peers.was_cut(taken.lease_id):
        return LeaseRefused("the lease was taken away meanwhile")
    session.lease_id = taken.lease_id
    lease = Lease(
        taken.lease_id, taken.run_id, taken.target, credential, taken.expires_ms, taken.revocable
    )
    return peers.kept.same(lease)
