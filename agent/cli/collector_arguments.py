"""The command line of loopwarden-collector."""

import argparse
from pathlib import Path

from agent import __version__
from agent.collector.statements import EFFECTS

STATE_DIR = Path("/var/lib/loopwarden-collector")
CONFIG = Path("/etc/loopwarden/collector.toml")
LISTEN = "[::]:7443"
ENROLL_LISTEN = "[::]:7444"
BY = "who started the run: a user, or the subject of a token; * is any characters"
EXIT_CODES = """exit codes:
  0  done        1  not found, refused, or `verify` found a bad chain
  2  wrong use   3  the store, the CA or an address can't be used
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


def _serving(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    serve = _placed(commands.add_parser("serve", help="run the collector"), json=False)
    serve.add_argument("--listen", metavar="HOST:PORT", help=f"for agents (default {LISTEN})")
    serve.add_argument(
        "--enroll-listen", metavar="HOST:PORT", help=f"for new hosts (default {ENROLL_LISTEN})"
    )
    serve.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    _placed(commands.add_parser("init", help="make the CA and the store, print the fingerprint"))


def _enrolling(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    token = commands.add_parser("token", help="join tokens for new hosts")
    create = token.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser(
        "create", help="print a token that lets one host of this name enroll, once"
    )
    _placed(create)
    create.add_argument("--host", required=True, metavar="NAME", help="the host's name here")
    create.add_argument("--ttl", default="10m", metavar="SPAN", help="e.g. 90s, 10m, 1h (10m)")
    enroll = commands.add_parser("enroll", help="on a host: get its identity with a token")
    enroll.add_argument("--collector", required=True, metavar="HOST:PORT", help="enrolment port")
    enroll.add_argument("--token", required=True, help="the token, or @FILE, or - for stdin")
    enroll.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="for the three files"
    )
    enroll.add_argument("--json", action="store_true", help="print one JSON document")


def _asking(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    _placed(commands.add_parser("hosts", help="hosts, their chains and alarms"))
    _filters(_placed(commands.add_parser("runs", help="runs of loops, newest first")))
    sessions = commands.add_parser("sessions", help="connections of loops and what went over them")
    actions = sessions.add_subparsers(dest="action", required=True, metavar="ACTION")
    _filters(_placed(actions.add_parser("list", help="newest first")))
    show = _placed(actions.add_parser("show", help="one session: who, which process, each call"))
    show.add_argument("session", metavar="ID", help="an id, or a unique beginning or end of it")
    tail = _filters(_placed(actions.add_parser("tail", help="calls as they end")))
    tail.add_argument("-f", "--follow", action="store_true", help="go on until interrupted")
    tail.add_argument("-n", "--lines", type=_count, default=20, help="how many to begin with (20)")
    who = _placed(commands.add_parser("who", help="who had access to a target at a moment"))
    who.add_argument("--target", required=True)
    who.add_argument("--loop", metavar="NAME")
    who.add_argument("--run", metavar="ID", help="an id, or its beginning or end")
    who.add_argument("--host", metavar="NAME")
    who.add_argument("--by", metavar="WHO", help=BY)
    who.add_argument("--at", default="now", metavar="TIME", help="now, 2h (ago), or ISO 8601")
    _placed(commands.add_parser("alarms", help="alarms of all hosts, newest first"))
    kill = _placed(
        commands.add_parser("kill", help="end a run's access and processes, or one lease, now")
    )
    kill.add_argument("name", metavar="RUN|LEASE", help="the whole id")
    kill.add_argument("--host", metavar="NAME", help="its host, if no record of it came yet")
    verify = _placed(
        commands.add_parser("verify", help="recompute all chains, name the first bad record")
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
    command.add_argument("--loop", metavar="NAME")
    command.add_argument("--run", metavar="ID", help="an id, or its beginning or end")
    command.add_argument("--host", metavar="NAME")
    command.add_argument("--target", metavar="NAME")
    command.add_argument("--verdict", choices=("allow", "deny"))
    command.add_argument("--effect", choices=EFFECTS, help="of a query, as its text tells")
    command.add_argument(
        "--table", metavar="NAME", help="that a query touches: orders, or s.orders"
    )
    command.add_argument("--text", metavar="TEXT", help="that a query's text or a path holds")
    command.add_argument("--by", metavar="WHO", help=BY)
    command.add_argument("--since", metavar="TIME", help="2h (ago), or ISO 8601")
    command.add_argument("--until", metavar="TIME")
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
        raise argparse.ArgumentTypeError("at most none is no question")
    return found
