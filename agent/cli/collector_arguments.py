"""The command line of loopwarden-collector."""

import argparse
from pathlib import Path

from agent import __version__
from agent.cli.help import Commands, add_command
from agent.collector.statements import EFFECTS

STATE_DIR = Path("/var/lib/loopwarden-collector")
CONFIG = Path("/etc/loopwarden/collector.toml")
LISTEN = "[::]:7443"
ENROLL_LISTEN = "[::]:7444"
BY = "who started the run: a user, or the subject of a token; * is any characters"
EXIT_CODES = """exit codes:
  0  done            1  not found, refused, `kill` is not confirmed (yet), or
  2  wrong use          `verify` found a bad chain
  130  interrupted   3  the store, the CA or an address can't be used
  141  nobody reads the output
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(
        prog="loopwarden-collector",
        description="Collects what loops did on many hosts, and answers who did what.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"loopwarden {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _serving(commands)
    _enrolling(commands)
    _asking(commands)
    return top


def _placed(command: argparse.ArgumentParser, *, json: bool = True) -> argparse.ArgumentParser:
    command.add_argument(
        "--state-dir",
        type=Path,
        default=None,
        metavar="DIR",
        help=f"where store and CA are (default: as {CONFIG} says, else {STATE_DIR})",
    )
    command.add_argument(
        "--config", type=Path, default=None, metavar="FILE", help=f"default: {CONFIG}"
    )
    if json:
        command.add_argument("--json", action="store_true", help="one JSON document a row")
    return command


def _serving(commands: Commands) -> None:
    serve = _placed(
        add_command(
            commands,
            "serve",
            "run the collector",
            "loopwarden-collector serve --listen '[::]:7443'",
            more="Take what enrolled hosts send, and enroll new ones, until SIGTERM. CA and store "
            "are made when there are none. The unit loopwarden-collector.service runs it.",
        ),
        json=False,
    )
    serve.add_argument("--listen", metavar="HOST:PORT", help=f"for agents (default {LISTEN})")
    serve.add_argument(
        "--enroll-listen", metavar="HOST:PORT", help=f"for new hosts (default {ENROLL_LISTEN})"
    )
    serve.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), help="default: info"
    )
    _placed(
        add_command(
            commands,
            "init",
            "make the CA and the store, print the fingerprint",
            "sudo loopwarden-collector init",
        )
    )


def _enrolling(commands: Commands) -> None:
    token = commands.add_parser("token", help="join tokens for new hosts")
    create = add_command(
        token.add_subparsers(dest="action", required=True, metavar="ACTION"),
        "create",
        "print a token that lets one host of this name enroll, once",
        "sudo loopwarden-collector token create --host worker-1 --ttl 1h",
    )
    _placed(create)
    create.add_argument("--host", required=True, metavar="NAME", help="the host's name here")
    create.add_argument("--ttl", default="10m", metavar="SPAN", help="e.g. 90s, 10m, 1h (10m)")
    enroll = add_command(
        commands,
        "enroll",
        "on a host: get its identity with a token",
        "sudo loopwarden-collector enroll --collector collector.example.com:7444 "
        "--token @join-token --out /etc/loopwarden/identity",
    )
    enroll.add_argument("--collector", required=True, metavar="HOST:PORT", help="enrolment port")
    enroll.add_argument("--token", required=True, help="the token, or @FILE, or - for stdin")
    enroll.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="for the three files"
    )
    enroll.add_argument("--json", action="store_true", help="print one JSON document")


def _asking(commands: Commands) -> None:
    _placed(
        add_command(
            commands, "hosts", "hosts, their chains and alarms", "loopwarden-collector hosts"
        )
    )
    runs = "loopwarden-collector runs --loop nightly-report --since 1d --json"
    _filters(_placed(add_command(commands, "runs", "runs of loops, newest first", runs)))
    _about_sessions(commands)
    who = _placed(
        add_command(
            commands,
            "who",
            "who had access to a target at a moment",
            "loopwarden-collector who --target orders-db --at 2026-11-30T14:05:00",
        )
    )
    who.add_argument("--target", required=True, metavar="NAME", help="the target of the policy")
    who.add_argument("--loop", metavar="NAME", help="of this loop alone")
    who.add_argument("--run", metavar="ID", help="an id, or its beginning or end")
    who.add_argument("--host", metavar="NAME", help="of this host alone")
    who.add_argument("--by", metavar="WHO", help=BY)
    who.add_argument("--at", default="now", metavar="TIME", help="now, 2h (ago), or ISO 8601")
    _placed(
        add_command(
            commands,
            "alarms",
            "alarms of all hosts, newest first",
            "loopwarden-collector alarms --json",
        )
    )
    _ending(commands)
    _verifying(commands)


def _about_sessions(commands: Commands) -> None:
    sessions = commands.add_parser("sessions", help="connections of loops and what went over them")
    actions = sessions.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = add_command(
        actions,
        "list",
        "newest first",
        "loopwarden-collector sessions list --verdict deny --since 2h",
        "loopwarden-collector sessions list --table refunds --effect write --since 2d",
        more="List connections of loops, newest first.",
    )
    _filters(_placed(listing))
    show = _placed(
        add_command(
            actions,
            "show",
            "one session: who, which process, each call",
            "loopwarden-collector sessions show 4T6R8S0V2X",
        )
    )
    show.add_argument("session", metavar="ID", help="an id, or a unique beginning or end of it")
    tail = add_command(
        actions,
        "tail",
        "calls as they end",
        "loopwarden-collector sessions tail --follow --target orders-db",
        more="Print the last calls of loops, with --follow each one as it ends.",
    )
    tail = _filters(_placed(tail))
    tail.add_argument("-f", "--follow", action="store_true", help="go on until interrupted")
    tail.add_argument("-n", "--lines", type=_count, default=20, help="how many to begin with (20)")


def _ending(commands: Commands) -> None:
    kill = _placed(
        add_command(
            commands,
            "kill",
            "end a run's access and processes, or one lease, now",
            "sudo loopwarden-collector kill 01KAKWV8Y2M4T6R8S0V2X4Z6B8",
            more="End a run's access and processes, or one lease, on its host, and wait up to "
            "15 s for the host's word on its credentials. Exit code: 0 confirmed, 1 not (yet).",
        )
    )
    kill.add_argument("name", metavar="RUN|LEASE", help="the whole id")
    kill.add_argument("--host", metavar="NAME", help="its host, if no record of it came yet")


def _verifying(commands: Commands) -> None:
    verify = _placed(
        add_command(
            commands,
            "verify",
            "recompute all chains, name the first bad record",
            "loopwarden-collector verify --state-dir store --ca ca.pem "
            "--checkpoint worker-1.checkpoint",
        )
    )
    verify.add_argument(
        "--checkpoint",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="also one that a host kept (spool/checkpoint), or one saved from --json; repeatable",
    )
    verify.add_argument(
        "--ca", type=Path, metavar="FILE", help="ca.pem of a host (default: the state directory's)"
    )


def _filters(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument("--loop", metavar="NAME", help="of this loop alone")
    command.add_argument("--run", metavar="ID", help="an id, or its beginning or end")
    command.add_argument("--host", metavar="NAME", help="of this host alone")
    command.add_argument("--target", metavar="NAME", help="at this target alone")
    command.add_argument(
        "--verdict",
        choices=("allow", "deny"),
        help="with a call judged so; deny: connections that were refused, too",
    )
    command.add_argument("--effect", choices=EFFECTS, help="of a query, as its text tells")
    command.add_argument(
        "--table", metavar="NAME", help="that a query touches: orders, or s.orders"
    )
    command.add_argument("--text", metavar="TEXT", help="that a query's text or a path holds")
    command.add_argument("--by", metavar="WHO", help=BY)
    command.add_argument("--since", metavar="TIME", help="2h (ago), or ISO 8601")
    command.add_argument("--until", metavar="TIME", help="as --since")
    command.add_argument("--limit", type=_some, default=100, help="at most so many (100)")
    return command


def _count(text: str) -> int:
    """Return a number that is not negative.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows")
    return int(text)


def _some(text: str) -> int:
    """Return a number of 1 and more.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not (found := _count(text)):
        raise argparse.ArgumentTypeError("it is 1 at least")
    return found
