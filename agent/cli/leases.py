"""`loopwarden leases` and `revoke`: who holds what, what happens to it next, and its end."""

import argparse
from pathlib import Path

from agent.broker.control import Accepted, LeaseView, ListLeases, Revoke
from agent.cli.client import Client, DaemonTrouble
from agent.cli.collector_text import clean
from agent.cli.output import counted, form, print_json, when
from agent.model.lease import OVER

_OVER = frozenset(state.value for state in OVER)
_MEANING = {
    "forgotten": "its use is over; nobody can revoke it, so it may live on at its backend",
    "quarantined": "it could not be revoked: a person is needed",
}


def leases(arguments: argparse.Namespace, socket_path: Path) -> int:
    """Print the leases that are not over, with --all the last that are too."""
    with Client(socket_path) as client:
        rows = client.rows(ListLeases(arguments.run or "", arguments.all))
        views = [row for row in rows if isinstance(row, LeaseView)]
    if arguments.json:
        print_json([form(view) for view in views])
        return 0
    if not views:
        print("no leases")
    for view in views:
        _print(view)
    return 0


def revoke(arguments: argparse.Namespace, socket_path: Path) -> int:
    """Cut a run or a lease, and say how far its revocation came; 1: not confirmed yet."""
    detail, views = "", []
    with Client(socket_path) as client:
        for row in client.rows(Revoke(arguments.run, arguments.rotate)):
            match row:
                case Accepted(text):
                    detail = text
                    if not arguments.json:
                        print(text, flush=True)
                case LeaseView():
                    views.append(row)
                case _:
                    raise DaemonTrouble(f"the daemon answered {type(row).__name__}: restart it")
    confirmed = all(view.state in _OVER for view in views)
    if arguments.json:
        print_json(
            {
                "detail": detail,
                "confirmed": confirmed,
                "leases": [form(view) for view in views],
            }
        )
    else:
        for view in views:
            _print(view)
        if not confirmed:
            print("NOT confirmed yet: it goes on; `loopwarden leases` shows the state")
    return 0 if confirmed else 1


def _print(view: LeaseView) -> None:
    print(f"{view.lease_id}  {view.target} ({view.provider})  {view.state}")
    print(f"  run      {view.run_id} of loop {view.loop}, {counted(view.sessions, 'session')}")
    ends = f", expires {when(view.expires_ms)}" if view.expires_ms else ""
    kind = "" if view.revocable else ", cannot be revoked"
    print(f"  since    {when(view.began_ms)}{ends}{kind}")
    if view.provider_id:
        print(f"  known as {clean(view.provider_id)}")
    if view.state in _MEANING:
        print(f"  meaning  {_MEANING[view.state]}")
    if view.error:
        tries = f" ({view.attempts} failed)" if view.attempts else ""
        print(f"  because  {clean(view.error)}{tries}")
    if view.next_action:
        moment = f" at {when(view.next_ms)}" if view.next_ms else ""
        print(f"  next     {view.next_action}{moment}")
    if view.withdrawn:
        print("  taken away by a person: its run gets no other for this target")
