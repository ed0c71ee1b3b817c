"""`loopwarden run`: fork a child that waits, have it admitted, then be transparent."""

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.broker.control import ARGV_BYTES_MAX, Accepted, AdmitRun, RunOpened, StartRun
from agent.cli import environment, launch, namespace, oidc, relay_signals, streams
from agent.cli.client import Client, DaemonTrouble, DeniedByPolicy
from agent.cli.launch import EXIT_DAEMON, Launch, LaunchError
from agent.runtime import confine

ISOLATION_WARNING = (
    "loopwarden: warning: no mount namespace here ({why}); programs that ignore SSL_CERT_FILE and "
    "its kin will not trust the filter\n"
)


@dataclass(frozen=True, slots=True)
class _Child:
    """A forked child that waits for one byte before it does anything."""

    pid: int
    go: int


def run(arguments: argparse.Namespace, socket_path: Path) -> int:
    """Run a command as a run of a loop; return its exit code, or die of its signal."""
    command = list(arguments.command)
    if not command:
        sys.stderr.write("loopwarden: no command: write it after --\n")
        return EXIT_DAEMON
    try:
        launch.check_standard_streams()
        user = launch.find_user(arguments.user) if arguments.user else None
        token = oidc.find(arguments, os.environ)
        with Client(socket_path) as client:
            opened, token = _open(client, arguments, command, token)
            variables = oidc.without_tokens(os.environ, token, arguments.oidc_token_env)
            isolated = arguments.trust == "mounts"
            child = _fork(client, _plan(command, variables, opened, user, isolated=isolated))
            if token or len(variables) != len(os.environ):
                # our memory and first variables are the token's: nobody of our user may read them
                confine.prctl(confine.PR_SET_DUMPABLE, 0)
            _admit(client, opened, child)
    except (DaemonTrouble, LaunchError) as error:
        streams.complain("loopwarden", str(error))
        return EXIT_DAEMON
    except OSError as error:
        streams.complain("loopwarden", streams.said(error))
        return EXIT_DAEMON
    relay_signals.block()  # until here a signal ends us, and the child sees it and leaves
    os.write(child.go, b"g")
    os.close(child.go)
    return relay_signals.wait(child.pid)


def _open(
    client: Client, arguments: argparse.Namespace, command: list[str], token: str
) -> tuple[RunOpened, str]:
    """Return the run that was made, and the token that let it start.

    Raises:
        DaemonTrouble: there is none.
    """
    loop, shown, user = arguments.loop, _shown(command), arguments.user or ""
    try:
        return client.ask(StartRun(loop, shown, user, token), RunOpened), token
    except DeniedByPolicy:
        token = "" if token else oidc.of_machine(arguments, os.environ)
        if not token:
            raise
    return client.ask(StartRun(loop, shown, user, token), RunOpened), token


def _plan(
    command: list[str],
    variables: Mapping[str, str],
    opened: RunOpened,
    user: launch.User | None,
    *,
    isolated: bool,
) -> Launch:
    trust_dir = opened.trust_dir if isolated else ""
    if trust_dir and os.geteuid() != 0:  # root's is not optional: the child fails without it
        why = namespace.permitted(trust_dir)
        if why:
            sys.stderr.write(ISOLATION_WARNING.format(why=why))
            trust_dir = ""
    other = (user.name, user.home) if user is not None else None
    theirs = environment.run_environment(variables, opened.trust_dir, opened.run_id, other)
    return Launch(command, theirs, trust_dir, user)


def _fork(client: Client, plan: Launch) -> _Child:
    """Fork; the child waits until it is told to go, and ends if nobody is left to tell it."""
    sys.stdout.flush()
    sys.stderr.flush()
    wait, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(go)
            client.close()
            told = os.read(wait, 1)
            os.close(wait)
            if told == b"g":
                launch.become_command(plan)
        finally:
            os._exit(EXIT_DAEMON)
    os.close(wait)
    return _Child(pid, go)


def _admit(client: Client, opened: RunOpened, child: _Child) -> None:
    pidfd = os.pidfd_open(child.pid)
    try:
        client.ask(AdmitRun(opened.run_id), Accepted, fds=(pidfd,))
    except DaemonTrouble:
        os.close(child.go)  # the child sees the end and leaves
        os.waitpid(child.pid, 0)
        raise
    finally:
        os.close(pidfd)


def _shown(command: list[str]) -> tuple[str, ...]:
    """Return the command line for the record, cut to what a request may carry."""
    shown: list[str] = []
    left = ARGV_BYTES_MAX
    for argument in command:
        text = argument.encode("utf-8", "replace")[:left].decode("utf-8", "replace")
        left -= len(text.encode()) + 8
        if left <= 0:
            shown.append("…")
            break
        shown.append(text)
    return tuple(shown)
