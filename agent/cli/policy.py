"""`loopwarden policy check`, `explain` and `reload`. check and explain need no daemon."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from agent.broker.control import Accepted, ReloadPolicy
from agent.broker.policy_files import load_policy
from agent.cli import policy_explain
from agent.cli.client import Client
from agent.cli.collector_text import json_line
from agent.cli.help import Commands, add_command
from agent.cli.output import counted
from agent.config.daemon import Daemon
from agent.policy.errors import PolicyError, Problem
from agent.policy.schema import Policy

SocketOf = Callable[[argparse.Namespace, Daemon], Path]


def add_parsers(commands: Commands, socket_of: SocketOf) -> None:
    """Add `policy` with its commands."""
    policy = commands.add_parser("policy", help="check, explain or reload the policy")
    actions = policy.add_subparsers(title="actions", required=True, metavar="ACTION")
    check_parser = add_command(
        actions,
        "check",
        "are these files a policy? (no daemon needed)",
        "loopwarden policy check",
        "loopwarden policy check --json ./nightly.yaml",
        more="Say every error and warning of these files, or of the directory, with file, line "
        "and column. Exit status: 0 it is a policy, 1 it is none. No daemon is needed.",
    )
    check_parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="these alone")
    check_parser.add_argument("--dir", type=Path, help="the directory (default: the daemon's)")
    check_parser.add_argument("--json", action="store_true", help="one JSON document")
    check_parser.set_defaults(act=check)
    explain_parser = policy_explain.add_parser(actions)
    explain_parser.add_argument("--dir", type=Path, help="the directory (default: the daemon's)")
    explain_parser.set_defaults(act=explain)
    reload_parser = add_command(
        actions,
        "reload",
        "read the files again (root)",
        "sudo loopwarden policy reload",
        more="Have the daemon read its files again, as `systemctl reload loopwarden` does. With an "
        "error the policy before stays in force, and the exit status is 125.",
    )
    reload_parser.set_defaults(act=lambda args, config: reload(socket_of(args, config)))


def check(arguments: argparse.Namespace, config: Daemon) -> int:
    """Print every problem and warning; 1 if there is a problem."""
    try:
        policy = _load(arguments.files, arguments.dir, config)
    except PolicyError as error:
        if arguments.json:
            print(json_line({"ok": False, "problems": _rows(error.problems), "warnings": []}))
        else:
            for problem in error.problems:
                sys.stderr.write(f"{problem}\n")
        return 1
    if arguments.json:
        print(json_line(_facts(policy)))
        return 0
    for warning in policy.warnings:
        sys.stderr.write(f"{warning.place}: warning: {warning.text}\n")
    print(f"ok: {counted(len(policy.loops), 'loop')}, {counted(len(policy.targets), 'target')}, "
          f"revision {policy.revision[:12]}")  # fmt: skip
    return 0


def _facts(policy: Policy) -> dict[str, object]:
    return {
        "ok": True,
        "loops": len(policy.loops),
        "targets": len(policy.targets),
        "revision": policy.revision,
        "problems": [],
        "warnings": _rows(policy.warnings),
    }


def _rows(problems: tuple[Problem, ...]) -> list[dict[str, object]]:
    return [{**asdict(one.place), "text": one.text} for one in problems]


def explain(arguments: argparse.Namespace, config: Daemon) -> int:
    """Print the verdict and the rules that match; 0 allowed, 1 denied or no policy."""
    try:
        policy = _load([], arguments.dir, config)
    except PolicyError as error:
        if arguments.json:
            document = {"verdict": "deny", "explanation": "these files are no policy"}
            print(json_line(document | {"problems": _rows(error.problems)}))
        else:
            sys.stderr.write(f"{error}\n")
        return 1
    return policy_explain.explain(arguments, policy)


def reload(socket_path: Path) -> int:
    """Have the daemon read its files again."""
    with Client(socket_path) as client:
        print(client.ask(ReloadPolicy(), Accepted).detail)
    return 0


def _load(files: list[Path], directory: Path | None, config: Daemon) -> Policy:
    if files:
        return load_policy(files)
    return load_policy([], directory=directory or Path(config.policy_dir))
