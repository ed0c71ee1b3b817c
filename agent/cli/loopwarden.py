"""The `loopwarden` command: argument parsing and dispatch; each command has its own module."""

import argparse
import sys
from pathlib import Path

from agent import __version__
from agent.cli import leases, oidc, policy, registry, run, status, streams
from agent.cli.client import DaemonTrouble
from agent.cli.launch import EXIT_DAEMON
from agent.config.daemon import DEFAULT_PATH, ConfigError, Daemon, load

EPILOG = """\
exit status:
  run        the command's own; killed by a signal if the command was;
             125 trouble with the daemon or a refusal, 126 the command cannot be
             executed, 127 the command is not found
  others     0 done, 1 the answer is no (policy check, explain, doctor),
             or not yet (revoke), 2 wrong usage, 125 trouble with the daemon or a refusal
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    return streams.guarded("loopwarden", lambda: _run(words), EXIT_DAEMON)


def _run(words: list[str]) -> int:
    arguments = _parse(words)
    try:
        code: int = arguments.act(arguments, _config(arguments))
    except (DaemonTrouble, ConfigError) as error:
        streams.complain("loopwarden", str(error))
        return EXIT_DAEMON
    return code


def _parse(argv: list[str]) -> argparse.Namespace:
    """Parse; of `run`, up to the first `--`: what is behind it is the command's, untouched."""
    split = argv.index("--") if "--" in argv else len(argv)
    parser = _parser()
    arguments, unknown = parser.parse_known_args(argv[:split])
    of_run = "command" in arguments
    if not of_run:
        return parser.parse_args(argv)
    if unknown:
        hint = "" if split < len(argv) else " (the command and its options stand behind --)"
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    arguments.command += argv[split + 1 :]
    return arguments


def _config(arguments: argparse.Namespace) -> Daemon:
    """Return the daemon's configuration; without a file at the default place, the defaults."""
    if arguments.config is not None:
        return load(arguments.config)
    return load(DEFAULT_PATH) if DEFAULT_PATH.exists() else Daemon()


def _socket(arguments: argparse.Namespace, config: Daemon) -> Path:
    return arguments.socket or config.control_socket


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="loopwarden",
        description="Run automated jobs without secrets: the process tree is the identity.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, help=f"the daemon's file (default: {DEFAULT_PATH})")
    parser.add_argument("--socket", type=Path, help="the control socket (default: by --config)")
    parser.add_argument("--version", action="version", version=f"loopwarden {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_registry(commands)
    _add_leases(commands)
    _add_status(commands)
    policy.add_parsers(commands, _socket)
    return parser


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "run",
        help="run a command as a run of a loop",
        description="Run COMMAND in a fresh run of loop NAME: attributed, filtered, recorded. "
        "Exit code, signals, terminal, stdin and stdout are the command's.",
    )
    parser.add_argument("--loop", required=True, metavar="NAME", help="the loop of the policy")
    parser.add_argument("--user", metavar="USER", help="run as this user (root only)")
    parser.add_argument(
        "--trust",
        choices=("mounts", "environment"),
        default="mounts",
        help="how the command learns of the CA: files over the usual paths in a mount namespace "
        "of its own and variables (default), or variables alone",
    )
    oidc.add_arguments(parser)
    parser.add_argument("command", nargs="*", metavar="-- COMMAND", help="with its arguments")
    parser.set_defaults(act=lambda args, config: run.run(args, _socket(args, config)))


def _add_registry(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    register = commands.add_parser(
        "register",
        help="make an existing cgroup v2 a run",
        description="Make an existing cgroup v2 (a systemd unit's, a container's) a run of a loop.",
    )
    register.add_argument("--loop", required=True, metavar="NAME")
    register.add_argument("--cgroup", required=True, metavar="PATH")
    register.set_defaults(act=lambda args, config: registry.register(args, _socket(args, config)))
    unregister = commands.add_parser("unregister", help="forget a registered cgroup")
    unregister.add_argument("run", metavar="RUN|PATH")
    unregister.set_defaults(
        act=lambda args, config: registry.unregister(args, _socket(args, config))
    )


def _add_leases(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    listing = commands.add_parser(
        "leases", help="leased credentials: of which run, their state, what is done next and when"
    )
    listing.add_argument("--all", action="store_true", help="the last ones that are over, too")
    listing.add_argument("--run", metavar="RUN", help="of this run alone")
    listing.add_argument("--json", action="store_true", help="for programs")
    listing.set_defaults(act=lambda args, config: leases.leases(args, _socket(args, config)))
    revoke = commands.add_parser(
        "revoke",
        help="end a run's access and processes, or one lease, now",
        description="Cut the sessions of a run or of one lease, revoke, and wait up to 10 s until "
        "it is confirmed. A revoked run gets no new lease; after a revoked lease, its run gets no "
        "other for that target. Exit status: 0 confirmed, 1 cut but not confirmed yet, 125 "
        "trouble with the daemon or a refusal.",
    )
    revoke.add_argument("run", metavar="RUN|LEASE")
    revoke.add_argument(
        "--rotate", action="store_true", help="of a lease: the run may take a new one"
    )
    revoke.add_argument("--json", action="store_true", help="for programs")
    revoke.set_defaults(act=lambda args, config: leases.revoke(args, _socket(args, config)))


def _add_status(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    for name, act, text in (
        ("loops", status.loops, "live runs: who started them, trees, sessions, leases"),
        ("status", status.status, "the daemon's state"),
        ("doctor", status.doctor, "probe each enforcement layer with real packets (root)"),
    ):
        parser = commands.add_parser(name, help=text)
        parser.add_argument("--json", action="store_true", help="for programs")
        parser.set_defaults(act=lambda args, config, act=act: act(args, _socket(args, config)))


if __name__ == "__main__":
    sys.exit(main())
