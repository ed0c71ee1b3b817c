"""`loopwarden loops`, `status` and `doctor`: for people, or with --json for programs."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agent.broker.control import (
    CredentialView,
    Diagnose,
    DiagnosisView,
    GetStatus,
    LeaseView,
    ListLoops,
    ProbeCredentials,
    ProcessView,
    Reply,
    RunView,
    SessionView,
    StatusView,
)
from agent.cli.client import Client
from agent.cli.collector_text import clean
from agent.cli.output import counted, form, print_json, when
from agent.ipc.messages import Layer
from agent.model.ids import RunId

if TYPE_CHECKING:
    from agent.cli.role_use import RoleUse

WARN_BEFORE_DAYS = 30
DAY_MS = 86_400_000


class RunTree(msgspec.Struct):
    """One run with everything that hangs on it, as `loops --json` prints it."""

    run: RunView
    processes: list[ProcessView]
    sessions: list[SessionView]
    leases: list[LeaseView]


def loops(arguments: argparse.Namespace, socket_path: Path) -> int:
    """Print the live runs."""
    with Client(socket_path) as client:
        trees = gather(list(client.rows(ListLoops())))
    if arguments.json:
        print_json([_tree_form(tree) for tree in trees])
        return 0
    if not trees:
        print("no live runs")
    for tree in trees:
        _print_tree(tree)
    return 0


def status(arguments: argparse.Namespace, socket_path: Path) -> int:
    """Print the daemon's state."""
    from agent.cli.role_use import role_uses  # noqa: PLC0415 - `run` begins without psutil

    with Client(socket_path) as client:
        view = client.ask(GetStatus(), StatusView)
        uses = role_uses(client.broker_pid)
    if arguments.json:
        print_json(form(view) | {"roles": uses})
        return 0
    accepting = "accepts runs" if view.accepting else f"REFUSES RUNS: {view.accepting_detail}"
    print(f"loopwarden {view.version}, instance {view.instance}: {accepting}")
    print(f"policy    {view.policy_revision[:12]}, {counted(view.loops, 'loop')}, "
          f"{counted(view.targets, 'target')}, loaded {when(view.policy_loaded_ms)}")  # fmt: skip
    if view.policy_problem:
        print("          the newest files are REJECTED, the policy before is in force:")
        for line in view.policy_problem.splitlines():
            print(f"          {clean(line)}")
    live = (view.runs, "run"), (view.sessions, "session"), (view.leases, "lease")
    print("live      " + ", ".join(counted(number, thing) for number, thing in live))
    print(f"workers   {', '.join(view.workers) or 'NONE'}")
    if view.reporter is None:
        print("records   the reporter does NOT answer")
    else:
        state = view.reporter
        link = "connected" if state.connected else "not connected"
        print(f"records   {state.last_seq} made, {state.acknowledged_seq} at the collector "
              f"({state.collector or 'none configured'}, {link}); spool "
              f"{state.spool_bytes >> 20} of {state.spool_bytes_max >> 20} MiB")  # fmt: skip
        if state.collector and not state.connected and state.detail:
            print(f"          {clean(state.detail)}")
    print("\n".join(use_lines(uses)) or "roles     can't be seen from here")
    print(f"host CA   until {when(view.ca_not_after_ms)}, replaced before by itself")
    for line in warnings(view, round(time.time() * 1000)):
        print(f"WARNING   {line}")
    _print_layers(view.layers)
    _print_counters(view.counters)
    return 0


def doctor(arguments: argparse.Namespace, socket_path: Path) -> int:
    """Probe the layers, and the providers if asked to; 1 if a claimed layer or one fails."""
    with Client(socket_path) as client:
        view = client.ask(Diagnose(), DiagnosisView)
        warned = warnings(client.ask(GetStatus(), StatusView), round(time.time() * 1000))
        rows = list(client.rows(ProbeCredentials())) if arguments.credentials else []
    probed = [row for row in rows if isinstance(row, CredentialView)]
    broken = [layer for layer in view.layers if layer.claimed and not layer.present]
    failing = [row for row in probed if row.problem]
    if arguments.json:
        shown = form(view) | {"ok": not broken and not failing, "warnings": warned}
        print_json(shown | ({"credentials": [form(row) for row in probed]} if probed else {}))
    else:
        _print_layers(view.layers)
        for line in warned:
            print(f"WARNING   {line}")
        print(f"{len(broken)} claimed layers are ABSENT" if broken else "all claimed layers hold")
        _print_credentials(probed)
    return 1 if broken or failing else 0


def use_lines(uses: Sequence["RoleUse"]) -> list[str]:
    """Return a line for each role: what it uses."""
    return [
        f"{'' if number else 'roles':9} {use.name:9} pid {use.pid:<8} "
        f"{use.memory_bytes / (1 << 20):4.0f} MiB  {use.cpu_s:8.1f} s of CPU time"
        for number, use in enumerate(uses)
    ]


def warnings(view: StatusView, now_ms: int) -> list[str]:
    """Return what will stop working within WARN_BEFORE_DAYS unless somebody does something."""
    ends_ms = view.reporter.identity_ends_ms if view.reporter is not None else 0
    if not ends_ms or ends_ms - now_ms > WARN_BEFORE_DAYS * DAY_MS:
        return []
    verb = "ends" if ends_ms > now_ms else "ENDED"
    line = (
        f"this host's certificate for the collector {verb} {when(ends_ms)}: enroll the host anew "
        "and replace its identity files; the daemon then reads them by itself"
    )
    return [line]


def gather(rows: list[Reply]) -> list[RunTree]:
    """Return the rows of ListLoops by run, in the order of starting."""
    trees: dict[RunId, RunTree] = {}
    for row in rows:
        match row:
            case RunView():
                trees[row.run.run_id] = RunTree(row, [], [], [])
            case ProcessView():
                trees[row.run_id].processes.append(row)
            case SessionView():
                trees[row.run_id].sessions.append(row)
            case LeaseView():
                trees[row.run_id].leases.append(row)
            case _:
                raise AssertionError(f"{type(row).__name__} in the list of runs")
    return sorted(trees.values(), key=lambda tree: tree.run.run.started_ms)


def _print_tree(tree: RunTree) -> None:
    run, who = tree.run.run, tree.run.run.initiator
    origin = f" on {who.tty}" if who.tty else ""
    print(f"{run.loop}  run {run.run_id}  {tree.run.state}  tier {run.tier}")
    print(f"  started {when(run.started_ms)} by {clean(who.user)} (uid {who.uid}, "
          f"pid {who.pid}{clean(origin)})")  # fmt: skip
    if who.token is not None:
        print(f"  token   {clean(who.token.subject)} of {clean(who.token.issuer)}")
    print(f"  cgroup  {clean(run.cgroup_path)}")
    if run.argv:
        print(f"  command {clean(' '.join(run.argv))}")
    for depth, row in in_tree_order(tree.processes):
        process = row.process
        shown = " ".join(process.argv) or process.exe or process.comm
        print(f"  {'  ' * depth}{process.pid} {clean(shown[:160])}")
    for session in tree.sessions:
        target = session.target or "no target"
        print(f"  session {session.session_id}  pid {session.pid} → {session.destination} {target}")
    for lease in tree.leases:
        print(f"  lease   {lease.lease_id}  {lease.target} ({lease.provider}) {lease.state}")


def in_tree_order(rows: list[ProcessView]) -> list[tuple[int, ProcessView]]:
    """Return (depth, process), each below its parent; who has no parent here stands at depth 0."""
    pids = {row.process.pid for row in rows}
    children: dict[int, list[ProcessView]] = {}
    for row in sorted(rows, key=lambda each: each.process.start_ns):
        parent = row.parent_pid if row.parent_pid in pids else 0
        children.setdefault(parent, []).append(row)
    ordered: list[tuple[int, ProcessView]] = []
    stack = [(0, row) for row in reversed(children.pop(0, []))]
    while stack:
        depth, row = stack.pop()
        ordered.append((depth, row))
        below = children.pop(row.process.pid, [])
        stack.extend((depth + 1, child) for child in reversed(below))
    return ordered


def _print_layers(layers: tuple[Layer, ...]) -> None:
    for layer in layers:
        state = "present" if layer.present else "ABSENT" if layer.claimed else "not available"
        print(f"  {layer.name:<28} {state:<14} {clean(layer.detail)}")


def _print_credentials(rows: list[CredentialView]) -> None:
    for row in rows:
        state = f"FAILS: {clean(row.problem)}" if row.problem else "could be issued"
        print(f"  {f'credential of {row.target}':<28} {row.provider:<14} {state}")


def _print_counters(counters: dict[str, int]) -> None:
    shown = {name: count for name, count in sorted(counters.items()) if count}
    for name, count in shown.items():
        print(f"  {name:<28} {count}")


def _tree_form(tree: RunTree) -> dict[str, object]:
    return form(tree.run) | {
        "processes": [form(row) for row in tree.processes],
        "sessions": [form(row) for row in tree.sessions],
        "leases": [form(row) for row in tree.leases],
    }
