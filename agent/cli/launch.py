"""The run's first process: between fork and exec, after it was admitted.

Order matters: it waits for the word that it is in the run's cgroup with the run's tag, then takes
the namespace, the user, the powers, and at last becomes the command.
"""

import contextlib
import os
import pwd
import signal
import socket
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from agent.cli import calls, namespace
from agent.runtime import confine

EXIT_DAEMON = 125  # as env(1), nohup(1), docker(1): trouble of ours
EXIT_CANNOT_EXECUTE = 126
EXIT_NOT_FOUND = 127

# linux/capability.h: what would let root of a run undo the run's bounds
DROPPED_CAPABILITIES = {
    "NET_ADMIN": 12,
    "NET_RAW": 13,
    "SYS_MODULE": 16,
    "SYS_RAWIO": 17,
    "SYS_PTRACE": 19,
    "SYS_ADMIN": 21,
    "SYS_BOOT": 22,
    "MKNOD": 27,
    "AUDIT_CONTROL": 30,
    "MAC_OVERRIDE": 32,
    "MAC_ADMIN": 33,
    "SYSLOG": 34,
    "PERFMON": 38,
    "BPF": 39,
    "CHECKPOINT_RESTORE": 40,
}


UNSHIELDED = "other processes of the command's user can take its sockets"


class LaunchError(Exception):
    """The command can't be started as asked."""


@dataclass(frozen=True, slots=True)
class User:
    """Whom the command runs as, when not as its caller."""

    uid: int
    gid: int
    name: str
    home: str


@dataclass(frozen=True, slots=True)
class Launch:
    """All that the child needs. trust_dir "" means: leave the mounts alone."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    trust_dir: str
    user: User | None


def find_user(name: str) -> User:
    """Return a user by name or number.

    Raises:
        LaunchError: there is none.
    """
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise LaunchError(f"there is no user {name!r}") from None
    return User(entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir)


def check_standard_streams() -> None:
    """Refuse inherited network sockets: they were made outside the run and would bypass it.

    Raises:
        LaunchError: descriptor 0, 1 or 2 is a socket of another family than AF_UNIX.
    """
    for fd in (0, 1, 2):
        try:
            copy = os.dup(fd)
        except OSError:
            continue  # closed
        try:
            if not stat.S_ISSOCK(os.fstat(copy).st_mode):
                continue
            with socket.socket(fileno=os.dup(copy)) as sock:
                family = sock.family
        finally:
            os.close(copy)
        if family != socket.AF_UNIX:
            raise LaunchError(
                f"descriptor {fd} is a network socket from outside the run: "
                "redirect it, for example through a pipe"
            )


def become_command(launch: Launch) -> NoReturn:
    """Never returns: the command, or an exit with a line on stderr."""
    code = EXIT_DAEMON
    try:
        reset_signals()
        _confine(launch)
        code = _execute(launch)
    except OSError as error:
        _say(f"cannot confine the command: {error}")
    except BaseException as error:  # noqa: BLE001 - a child of fork must never return
        _say(f"cannot start the command: {error!r}")
    os._exit(code)


def _confine(launch: Launch) -> None:
    if launch.trust_dir:
        namespace.isolate(launch.trust_dir)
    _close_descriptors()
    if os.geteuid() == 0:
        try:
            namespace.shield()
        except OSError as error:
            _say(f"warning: no user namespace here ({error.strerror}): {UNSHIELDED}")
        _drop_bounding_set()  # behind the shield, which fills it again
    if launch.user is not None:
        os.initgroups(launch.user.name, launch.user.gid)
    if os.geteuid() == 0:
        confine.prctl(confine.PR_CAP_AMBIENT, confine.PR_CAP_AMBIENT_CLEAR_ALL)
    if launch.user is not None:
        os.setresgid(launch.user.gid, launch.user.gid, launch.user.gid)
        os.setresuid(launch.user.uid, launch.user.uid, launch.user.uid)
    confine.prctl(confine.PR_SET_NO_NEW_PRIVS, 1)
    calls.confine_calls()


def _drop_bounding_set() -> None:
    for capability in DROPPED_CAPABILITIES.values():
        try:
            present = confine.prctl(confine.PR_CAPBSET_READ, capability)
        except OSError:
            continue  # a kernel that does not know it
        if present:
            confine.prctl(confine.PR_CAPBSET_DROP, capability)


def _close_descriptors() -> None:
    """Close all but the standard streams; a limit says nothing of what was opened before it."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the listing's own
                os.close(int(name))


def reset_signals() -> None:
    """Give back what Python changed; an interrupt that the caller ignores stays ignored."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _execute(launch: Launch) -> int:
    """Return the exit code of what went wrong: exec does not return otherwise."""
    command = launch.argv[0]
    try:
        os.execvpe(command, list(launch.argv), dict(launch.environment))  # noqa: S606 - its purpose
    except FileNotFoundError:
        text, code = "not found", EXIT_NOT_FOUND
    except (OSError, ValueError) as error:
        text, code = str(getattr(error, "strerror", None) or error), EXIT_CANNOT_EXECUTE
    _say(f"{command}: {text}")
    return code


def _say(text: str) -> None:
    sys.stderr.write(f"loopwarden: {text}\n")
    sys.stderr.flush()
