"""Who may start a loop: names of the policy against what the kernel says of the caller."""

import grp
import pwd
from typing import assert_never

from agent.broker.origin import Inside
from agent.broker.peer import Peer
from agent.policy.schema import Container, Group, LoopPolicy, Token, Uid, Unit, User, Who


def may_start(loop: LoopPolicy, peer: Peer) -> bool:
    """Return whether the caller may, whatever token it has.

    Root may start every loop; nobody is in an empty list.
    """
    return peer.is_root or any(_is(who, peer) for who in loop.who)


def tokens_of(loop: LoopPolicy) -> tuple[Token, ...]:
    """Return the entries that a token can fit."""
    return tuple(who for who in loop.who if isinstance(who, Token))


def _is(who: Who, peer: Peer) -> bool:
    match who:
        case Uid(uid):
            return peer.uid == uid
        case User(name):
            try:
                return pwd.getpwnam(name).pw_uid == peer.uid
            except KeyError:
                return False
        case Group(name):
            try:
                return grp.getgrnam(name).gr_gid in peer.groups
            except KeyError:
                return False
        case Unit(name):
            # without an invocation, systemd does not know the unit: somebody else made the cgroup
            return peer.initiator.service == name and bool(peer.initiator.invocation)
        case Container():
            return peer.container is not None and _is_container(who, peer.container)
        case Token():
            return False  # see agent/broker/identity
        case _:
            assert_never(who)


def _is_container(wanted: Container, found: Inside) -> bool:
    return (
        wanted.runtime == found.runtime
        and found.id.startswith(wanted.id)
        and wanted.parent in {"", found.parent}
        and wanted.pod in {"", found.pod}
    )
