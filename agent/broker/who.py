"""Who may start a loop: names of the policy against what the kernel says of the caller."""

import grp
import pwd
from typing import assert_never

from agent.broker.peer import Peer
from agent.policy.schema import Group, LoopPolicy, Uid, User, Who


def may_start(loop: LoopPolicy, peer: Peer) -> bool:
    """Return whether the caller may. Root may start every loop; nobody is in an empty list."""
    return peer.is_root or any(_is(who, peer) for who in loop.who)


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
        case _:
            assert_never(who)
