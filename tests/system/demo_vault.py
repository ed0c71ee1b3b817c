"""The demonstration's facts about a vault: OpenBao makes a login for a run, and it dies with it."""

import contextlib
import json
import re
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.servers.openbao_setup import USERS, Vault
from tests.servers.postgres import Postgres
from tests.system.demo_stage import LOOP, Stage

NAME = "ledger.demo.internal"
TARGET = """
  ledger:  # the same server, by a login that a vault makes for each run
    protocol: postgres
    address: {name}
    dial: {address}:5432
    ca: {ca}
    database: orders
    credential:
      provider: vault
      address: {url}
      ca: {ca}
      auth: approle
      role_id: {role_id}
      file: {secret_id}
      token_role: loopwarden
      policies: [read]
      path: database/creds/orders
"""
RULES = """\
      - {target: ledger, allow: {effects: [read]}}
"""
GONE_WITHIN_S = 1.0
ASKED_FOR_S = 60.0  # how long it is asked for, to say how late it was
STARTED_WITHIN_S = ENDED_WITHIN_S = 60.0
ASK_AGAIN_S = 0.005  # neither server tells anybody when something is gone
PRESSURE = (Path("/proc/pressure/cpu"), Path("/proc/pressure/io"))
PSQL = f'psql -XAtc "SELECT current_user" postgresql://{NAME}/orders'


def target(server: Postgres, vault: Vault, ca: Path, secret_id: Path) -> str:
    """Return the policy's words for this vault and the database behind it."""
    return TARGET.format(
        name=NAME,
        address=server.address,
        ca=ca,
        url=vault.bao.url,
        role_id=vault.role_id,
        secret_id=secret_id,
    ).lstrip("\n")


def login_comes_and_goes(stage: Stage) -> None:
    """Facts 10 and 11."""
    stage.screen.fact("A real OpenBao makes a database login for the run that needs one")
    before = _made(stage)
    with _waiting_run(stage) as process:
        user, took_s = _user_of(process)
        stage.screen.output(user or "no answer")
        lease = _leases(stage)[-1]
        stage.screen.holds(
            user.startswith("v-token-") and f"user={user} " in stage.database.log(),
            "psql, given no user and no password, was logged in as a user of OpenBao's making",
            took_s,
        )
        _is_everywhere(stage, before, user, lease)
        _show(stage, "leases", "--run", lease["run_id"])
        _goes(stage, process, user, lease)


def _is_everywhere(stage: Stage, before: list[str], user: str, lease: dict[str, Any]) -> None:
    """Ask both servers for it; before the run they had nothing of this kind."""
    known = stage.vault.leases()
    stage.screen.holds(
        before == [] and [f"database/creds/orders/{each}" for each in known]
        == [lease["provider_id"]],
        "OpenBao lists one lease, the one that Loopwarden shows; before there was none",
    )  # fmt: skip
    runs = [each["meta"]["run"] for each in stage.vault.children()]
    stage.screen.holds(
        runs == [lease["run_id"]], "made with a token of OpenBao's for this run alone"
    )
    stage.screen.holds(_users(stage) == [user], "PostgreSQL has it in pg_roles, and no other")


def _goes(stage: Stage, process: "subprocess.Popen[str]", user: str, lease: dict[str, Any]) -> None:
    stage.screen.fact("A second after the run that login is nowhere any more")
    began, waited_s = time.monotonic(), _waited_s()
    _let_end(process)
    while _made(stage) and time.monotonic() - began < ASKED_FOR_S:
        select.select([], [], [], ASK_AGAIN_S)
    took_s = time.monotonic() - began
    busy_s = max(after - before for after, before in zip(_waited_s(), waited_s, strict=True))
    stage.screen.holds(
        not _made(stage) and (took_s - busy_s <= GONE_WITHIN_S or not stage.timed),
        "OpenBao has neither lease nor token, PostgreSQL no such user; since the run was let end:",
        took_s,
    )
    process.wait(ENDED_WITHIN_S)
    stage.screen.holds(process.returncode == 0, "the run itself ended with exit code 0")
    stage.screen.holds(
        bool(user) and f'DROP ROLE IF EXISTS "{user}"' in stage.database.log(),
        "dropped by OpenBao, says the database's own log",
    )
    while _leases(stage) and time.monotonic() - began < ASKED_FOR_S:
        select.select([], [], [], ASK_AGAIN_S)  # until Loopwarden has their answers too
    _show(stage, "leases", "--all", "--run", lease["run_id"])
    states = [
        (each["state"], each["revocable"])
        for each in _leases(stage, "--all")
        if each["lease_id"] == lease["lease_id"]
    ]
    stage.screen.holds(states == [("revoked", True)], "and Loopwarden says so: revoked, confirmed")


def _waited_s() -> tuple[float, ...]:
    """Return for how long something waited for a processor, and for a disk, in all.

    Where it does, a second says nothing of us. 0 where the kernel does not count it.
    Source: Documentation/accounting/psi.rst.
    """
    found = []
    for path in PRESSURE:
        text = ""
        with contextlib.suppress(OSError):
            text = path.read_text()
        match = re.search(r"^some .*total=(\d+)", text)
        found.append(int(match[1]) / 1e6 if match else 0.0)
    return tuple(found)


@contextlib.contextmanager
def _waiting_run(stage: Stage) -> Iterator["subprocess.Popen[str]"]:
    """Run psql, then wait for a line; the run ends with this block if it has not before."""
    script = f"{PSQL}; read line"
    stage.screen.command(["loopwarden", "run", "--loop", LOOP, "--", "sh", "-c", script])
    process = subprocess.Popen(
        stage.host.run_command(LOOP, ["sh", "-c", script]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=stage.host.loop_environment(),
        cwd="/",
    )
    try:
        yield process
    finally:
        _let_end(process)
        try:
            process.wait(ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _let_end(process: "subprocess.Popen[str]") -> None:
    """Give it the line that it waits for: the shell ends, and with it the run."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended by itself
        if not process.stdin.closed:
            process.stdin.write("\n")
            process.stdin.close()


def _user_of(process: "subprocess.Popen[str]") -> tuple[str, float]:
    """Return the user that the run is in the database, and when it said so."""
    assert process.stdout is not None
    began = time.monotonic()
    readable, _, _ = select.select([process.stdout], [], [], STARTED_WITHIN_S)
    said = process.stdout.readline().strip() if readable else "nothing"
    return said, time.monotonic() - began


def _made(stage: Stage) -> list[str]:
    """Ask both servers for all that OpenBao made for runs and that still is."""
    tokens = [str(each["accessor"]) for each in stage.vault.children()]
    return stage.vault.leases() + tokens + _users(stage)


def _users(stage: Stage) -> list[str]:
    return [row[0] for row in stage.database.ask(USERS)]


def _leases(stage: Stage, *words: str) -> list[dict[str, Any]]:
    """Return what Loopwarden knows of this target's leases, oldest first."""
    found: list[dict[str, Any]] = json.loads(stage.host.cli("leases", *words, "--json").stdout)
    mine = [each for each in found if each["target"] == "ledger"]
    return sorted(mine, key=lambda each: int(each["began_ms"]))


def _show(stage: Stage, *words: str) -> None:
    """Show a command of ours and what it says."""
    stage.screen.command(["loopwarden", *words])
    stage.screen.output(stage.host.cli(*words).stdout)
