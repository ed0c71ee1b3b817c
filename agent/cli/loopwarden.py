"""The `loopwarden` command: argument parsing and dispatch; each command has its own module."""

import argparse
import sys
from pathlib import Path

from agent import __version__
from agent.cli import leases, oidc, policy, registry, run, status, streams
from agent.cli.client import DaemonTrouble
from agent.cli.help import Commands, add_command
from agent.cli.launch import EXIT_DAEMON
from agent.config.daemon import DEFAULT_PATH, ConfigError, Daemon, load

EPILOG = """\
exit status:
  run        the command's own; killed by a signal if the command was;
             125 trouble with the daemon or a refusal, 126 the command cannot be
             executed, 127 the command is not found
  others     0 done, 1 the answer is no (policy check, explain, doctor),
             or not yet (revoke), 125 trouble with the daemon or a refusal
  all        2 wrong usage, nothing was done; 130 interrupted; 141 nobody reads the output
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


def _add_run(commands: Commands) -> None:
    parser = add_command(
        commands,
        "run",
        "run a command as a run of a loop",
        "loopwarden run --loop nightly-report -- curl https://api.github.com/repos/acme/orders",
        "sudo loopwarden run --loop nightly-report --user report -- ./report.sh --today",
        more="Run COMMAND in a fresh run of loop NAME: attributed, filtered, recorded. "
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


def _add_registry(commands: Commands) -> None:
    register = add_command(
        commands,
        "register",
        "make an existing cgroup v2 a run",
        "loopwarden register --loop nightly-report --cgroup /system.slice/report.service",
        more="Make an existing cgroup v2 (a systemd unit's, a container's) a run of a loop, and "
        "print the run's id. Its run ends when its last process does.",
    )
    register.add_argument("--loop", required=True, metavar="NAME", help="the loop of the policy")
    register.add_argument(
        "--cgroup", required=True, metavar="PATH", help="below the mount of cgroup v2, or in full"
    )
    register.set_defaults(act=lambda args, config: registry.register(args, _socket(args, config)))
    unregister = add_command(
        commands,
        "unregister",
        "forget a registered cgroup",
        "loopwarden unregister /system.slice/report.service",
    )
    unregister.add_argument("run", metavar="RUN|PATH", help="the run's id, or its cgroup")
    unregister.set_defaults(
        act=lambda args, config: registry.unregister(args, _socket(args, config))
    )


def _add_leases(commands: Commands) -> None:
    listing = add_command(
        commands,
        "leases",
        "leased credentials: of which run, their state, what is done next and when",
        "loopwarden leases --all --json",
    )
    listing.add_argument("--all", action="store_true", help="the last ones that are over, too")
    listing.add_argument("--run", metavar="RUN", help="of this run alone")
    listing.add_argument("--json", action="store_true", help="for programs")
    listing.set_defaults(act=lambda args, config: leases.leases(args, _socket(args, config)))
    revoke = add_command(
        commands,
        "revoke",
        "end a run's access and processes, or one lease, now",
        "loopwarden revoke 01KAKWV8Y2M4T6R8S0V2X4Z6B8",
        more="Cut the sessions of a run or of one lease, revoke, and wait up to 10 s until "
        "it is confirmed. A revoked run gets no new lease; after a revoked lease, its run gets no "
        "other for that target. Exit status: 0 confirmed, 1 cut but not confirmed yet, 125 "
        "trouble with the daemon or a refusal.",
    )
    revoke.add_argument("run", metavar="RUN|LEASE", help="an id of `loopwarden loops`")
    revoke.add_argument(
        "--rotate", action="store_true", help="of a lease: the run may take a new one"
    )
    revoke.add_argument("--json", action="store_true", help="for programs")
    revoke.set_defaults(act=lambda args, config: leases.revoke(args, _socket(args, config)))


def _add_status(commands: Commands) -> None:
    for name, act, text in (
        ("loops", status.loops, "live runs: who started them, trees, sessions, leases"),
        ("status", status.status, "the daemon's state"),
        ("doctor", status.doctor, "probe each enforcement layer with real packets (root)"),
    ):
        parser = add_command(commands, name, text, f"loopwarden {name} --json")
        parser.add_argument("--json", action="store_true", help="for programs")
        if name == "doctor":
            parser.add_argument(
                "--credentials",
                action="store_true",
                help="also ask each target's provider whether it could issue a credential now",
            )
        parser.set_defaults(act=lambda args, config, act=act: act(args, _socket(args, config)))


if __name__ == "__main__":
    sys.exit(main())
