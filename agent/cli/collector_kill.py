"""`loopwarden-collector kill RUN|LEASE`: end it on its host, and say how far that came."""

import argparse
import getpass
import os
import sys
import time
from pathlib import Path

from sqlalchemy import Engine

from agent.cli.collector_settings import state_dir
from agent.cli.collector_text import clean, json_line, out
from agent.cli.streams import complain
from agent.collector import kills
from agent.collector.store import open_for_reading
from agent.runtime import clock

LOOK_INTERVAL_S = 0.1
WAIT_S = 15.0  # for the host's last word: it waits 10 s for its providers itself
_MEANING = {
    "asked": "not told yet: its host is not connected; it is told as soon as it is",
    "cut": "cut on its host; its providers have not confirmed yet",
    "confirmed": "cut, and what can be revoked of its credentials is gone",
    "unconfirmed": "cut on its host; revoking its credentials goes on there",
    "failed": "its host could not do all of it",
    "unknown": "its host has no such live run or open lease",
}
_LEFT = "it was asked for, and goes on without this command"


def kill(arguments: argparse.Namespace) -> int:
    """Ask, and wait for the host's word; 1: not confirmed.

    Raises:
        StoreError: no store. NotFound: no run or lease of this id.
    """
    engine = open_for_reading(Path(state_dir(arguments)))
    try:
        kill_id = clock.fresh_ulid()
        with engine.begin() as connection:
            host_id = kills.find_host(connection, arguments.name, arguments.host)
            by = os.environ.get("SUDO_USER") or getpass.getuser()
            kills.ask(connection, kill_id, host_id, arguments.name, by, clock.unix_ms())
        try:
            state, detail = _watch(engine, kill_id, arguments)
        except KeyboardInterrupt:
            complain("loopwarden-collector", f"{arguments.name}: {_LEFT}")
            raise
    finally:
        engine.dispose()
    if arguments.json:
        facts = {"kill_id": kill_id, "host_id": host_id, "state": state, "detail": detail}
        out(json_line({"name": arguments.name} | facts))
    else:
        out(f"{arguments.name}: {state}: {_MEANING[state]}")
        if detail:
            out(clean(detail))
    return 0 if state == "confirmed" else 1


def _watch(engine: Engine, kill_id: str, arguments: argparse.Namespace) -> tuple[str, str]:
    """Return how far it came within WAIT_S, and the host's words."""
    state, detail = "asked", ""
    until_s = time.monotonic() + WAIT_S
    while state in {"asked", "cut"} and time.monotonic() < until_s:
        time.sleep(LOOK_INTERVAL_S)
        with engine.connect() as connection:
            before, (state, detail) = state, kills.state_of(connection, kill_id)
        if state == "cut" and before != "cut" and not arguments.json:
            out(f"{arguments.name}: cut")
            sys.stdout.flush()
    return state, detail
