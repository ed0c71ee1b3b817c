"""`loopwarden policy check`, `explain` and `reload`. check and explain need no daemon."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import assert_never
from urllib.parse import urlsplit

from agent.broker.control import Accepted, ReloadPolicy
from agent.broker.policy_files import load_policy
from agent.cli.client import Client
from agent.config.daemon import Daemon
from agent.model.ids import LoopName, RunId
from agent.model.verdict import Allow, Deny
from agent.policy.address import DEFAULT_PORTS, AddressError, canonical_host
from agent.policy.compile import assign_synthetic, compile_grant, compile_target, targets_of
from agent.policy.errors import PolicyError
from agent.policy.evaluate import Evaluator, Explanation
from agent.policy.schema import LoopPolicy, Policy, TargetPolicy

SocketOf = Callable[[argparse.Namespace, Daemon], Path]


def add_parsers(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", socket_of: SocketOf
) -> None:
    """Add `policy` with its commands."""
    policy = commands.add_parser("policy", help="check, explain or reload the policy")
    actions = policy.add_subparsers(title="actions", required=True, metavar="ACTION")
    check_parser = actions.add_parser("check", help="are these files a policy? (no daemon needed)")
    check_parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    check_parser.add_argument("--dir", type=Path, help="the directory (default: the daemon's)")
    check_parser.set_defaults(act=check)
    explain_parser = actions.add_parser(
        "explain", help="would the loop's request be allowed, and by which rule?"
    )
    explain_parser.add_argument("--loop", required=True, metavar="NAME")
    explain_parser.add_argument("--dir", type=Path, help="the directory (default: the daemon's)")
    explain_parser.add_argument("method", metavar="METHOD")
    explain_parser.add_argument("url", metavar="URL")
    explain_parser.set_defaults(act=explain)
    reload_parser = actions.add_parser("reload", help="read the files again (root)")
    reload_parser.set_defaults(act=lambda args, config: reload(socket_of(args, config)))


def check(arguments: argparse.Namespace, config: Daemon) -> int:
    """Print every problem and warning; 1 if there is a problem."""
    try:
        policy = _load(arguments.files, arguments.dir, config)
    except PolicyError as error:
        for problem in error.problems:
            sys.stderr.write(f"{problem}\n")
        return 1
    for warning in policy.warnings:
        sys.stderr.write(f"{warning.place}: warning: {warning.text}\n")
    print(f"ok: {len(policy.loops)} loops, {len(policy.targets)} targets, "
          f"revision {policy.revision[:12]}")  # fmt: skip
    return 0


def explain(arguments: argparse.Namespace, config: Daemon) -> int:
    """Print the verdict and the rules that match; 0 allowed, 1 denied."""
    try:
        policy = _load([], arguments.dir, config)
    except PolicyError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    loop = policy.loops.get(LoopName(arguments.loop))
    if loop is None:
        sys.stderr.write(f"the policy has no loop {arguments.loop!r}\n")
        return 1
    try:
        target, path = _target_of(policy, loop, arguments.url)
    except ValueError as error:
        print(f"denied: {error}")
        return 1
    compiled = compile_target(target, assign_synthetic(policy))
    grant = compile_grant(policy, loop, compiled, RunId(""), 0)
    return _print(Evaluator(grant).explain(arguments.method, path), target)


def reload(socket_path: Path) -> int:
    """Have the daemon read its files again."""
    with Client(socket_path) as client:
        print(client.ask(ReloadPolicy(), Accepted).detail)
    return 0


def _load(files: list[Path], directory: Path | None, config: Daemon) -> Policy:
    if files:
        return load_policy(files)
    return load_policy([], directory=directory or Path(config.policy_dir))


def _target_of(policy: Policy, loop: LoopPolicy, url: str) -> tuple[TargetPolicy, str]:
    """Return the loop's target that a URL reaches, and the path.

    Raises:
        ValueError: no target; the message says why, for people.
    """
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("a URL begins with https:// or http://")
    try:
        host = canonical_host(parts.hostname or "")
    except AddressError as error:
        raise ValueError(str(error)) from error
    port = parts.port if parts.port is not None else DEFAULT_PORTS[parts.scheme]
    mine = targets_of(loop)
    # an https target on 443 is reached on port 80 in clear text as well
    for wanted in (port, 443 if (parts.scheme, port) == ("http", 80) else port):
        for target in policy.targets.values():
            if (target.host, target.port) == (host, wanted) and target.name in mine:
                return target, parts.path or "/"
    raise ValueError(
        f"{host}:{port} is the address of no target in the rules of loop {loop.name}; "
        "such a connection is refused"
    )


def _print(explanation: Explanation, target: TargetPolicy) -> int:
    match explanation.verdict:
        case Allow(rule):
            print(f"allowed by rule {rule}, at target {target.name}")
            code = 0
        case Deny(rule, _, text, next_step):
            print(f"denied ({rule}): {text}")
            print(f"  {next_step}")
            code = 1
        case _:
            assert_never(explanation.verdict)
    for matched in explanation.matched:
        print(f"  matches {matched.rule_id}: {matched.effect}, mode {matched.mode}")
    return code
