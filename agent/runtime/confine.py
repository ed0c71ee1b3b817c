"""Give up power: become another user, for ever, with nothing that could take it back."""

import ctypes
import grp
import os
import pwd
import resource
from dataclasses import dataclass

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_prctl.restype = ctypes.c_int

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4


@dataclass(frozen=True, slots=True)
class Account:
    """A user to become."""

    uid: int
    gid: int


def account(user: str) -> Account:
    """Resolve a name, or a numeric id as text (its group is then the same number).

    Raises:
        LookupError: no such user; the message says how to make it.
    """
    if user.isdecimal():
        return Account(int(user), int(user))
    try:
        entry = pwd.getpwnam(user)
    except KeyError as error:
        raise LookupError(
            f"there is no user {user!r}: run `systemd-sysusers`, or set [users] to numeric ids"
        ) from error
    return Account(entry.pw_uid, entry.pw_gid)


def group_id(group: str) -> int:
    """Resolve a group's name or number.

    Raises:
        LookupError: no such group.
    """
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise LookupError(f"there is no group {group!r}") from error


def prctl(option: int, argument: int = 0, second: int = 0) -> int:
    """Call prctl(2).

    Raises:
        OSError: the kernel refused.
    """
    result: int = _prctl(option, argument, second, 0, 0)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")
    return result


def drop_bounding_set(keep: frozenset[int] = frozenset()) -> None:
    """Drop every capability but these from the bounding set; needs CAP_SETPCAP.

    Raises:
        OSError: the kernel refused.
    """
    for capability in range(64):
        try:
            present = prctl(PR_CAPBSET_READ, capability)
        except OSError:
            return  # past the last capability that this kernel knows
        if present and capability not in keep:
            prctl(PR_CAPBSET_DROP, capability)


def harden() -> None:
    """No core dumps, no ptrace by the same user, no new privileges.

    Raises:
        OSError: the kernel refused.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl(PR_SET_DUMPABLE, 0)
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def become(user: Account) -> None:
    """Become the user with no capability, bounding set or group of ours left, and harden.

    Raises:
        OSError: any step failed; the caller must exit.
    """
    if os.geteuid() == 0:
        drop_bounding_set()
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
        os.setgroups([])
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    if user.uid != 0 and (os.geteuid() == 0 or 0 in os.getresuid()):
        raise OSError("still root after setresuid")
    harden()
