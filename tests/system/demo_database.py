"""The demonstration's facts about a database: a login for one run, statements by their effect."""

import select
import time
from pathlib import Path

from tests.servers import openbao_setup
from tests.servers.postgres import Postgres, canaries
from tests.system.demo_screen import shorten
from tests.system.demo_stage import LOOP, Stage, run

NAME = "orders.demo.internal"
TARGET = """
  orders:
    protocol: postgres
    address: {name}
    dial: {address}:5432
    ca: {ca}
    database: orders
    credential:
      provider: postgres  # a role for each run, dropped when it ends
      admin: loopwarden_admin
      file: {admin}
      grants: ["SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"]
"""
RULES = """\
      - {target: orders, allow: {effects: [read]}}
      - {target: orders, allow: {effects: [read, write], tables: [refunds]}}
"""
ROLE_GONE_WITHIN_S = 60.0
SUMMARY = "SELECT state, count(*), sum(total) FROM orders GROUP BY state ORDER BY state"
HIDDEN = "WITH gone AS (DELETE FROM orders WHERE id < 100 RETURNING id) SELECT count(*) FROM gone"


def target(server: Postgres, ca: Path, admin: Path) -> str:
    """Return the policy's words for this server."""
    return TARGET.format(name=NAME, address=server.address, ca=ca, admin=admin).lstrip("\n")


def _psql(*statements: str) -> list[str]:
    """Return psql as a person types it; -X: without a start-up file."""
    asked = [word for statement in statements for word in ("-c", statement)]
    return ["psql", "-X", f"postgresql://{NAME}/orders", *asked]


def _roles(server: Postgres) -> list[str]:
    return [row[0] for row in server.ask("SELECT rolname FROM pg_roles WHERE rolname ~ '^loopw'")
            if row[0] != "loopwarden_admin"]  # fmt: skip


def psql_works(stage: Stage) -> None:
    """Fact 6."""
    stage.screen.fact("Plain psql, with no user and no password, reads a real PostgreSQL")
    answer = run(stage, _psql(SUMMARY))
    stage.screen.holds(
        answer.code == 0 and "returned" in answer.stdout,
        "logged in by SCRAM within verified TLS, with a password that nobody was told",
        answer.took_s,
    )


def destruction_is_refused(stage: Stage) -> None:
    """Fact 7."""
    stage.screen.fact("DROP TABLE and DELETE without WHERE are refused, and the session goes on")
    before = stage.database.ask("SELECT count(*) FROM refunds")
    answer = run(
        stage, _psql("DROP TABLE refunds", "DELETE FROM refunds", "SELECT count(*) FROM refunds")
    )
    stage.screen.holds(
        answer.stderr.count("denied by rule") == 2 and "HINT" in answer.stderr,
        "two errors (SQLSTATE 42501) that name the rule and the next step",
        answer.took_s,
    )
    log = stage.database.log()
    stage.screen.holds(
        before == stage.database.ask("SELECT count(*) FROM refunds")
        and before[0][0] in answer.stdout
        and "DROP TABLE refunds" not in log
        and "DELETE FROM refunds" not in log,
        "neither reached the server, by its own log; the SELECT after them did",
    )


def hidden_write_is_caught(stage: Stage) -> None:
    """Fact 8."""
    stage.screen.fact("A DELETE within a SELECT is seen for what it is")
    answer = run(stage, _psql(HIDDEN))
    stage.screen.holds(
        answer.code != 0 and "denied by rule" in answer.stderr and "orders" in answer.stderr,
        "refused: by what the statement does, not by its first word",
        answer.took_s,
    )
    stage.screen.holds("WITH gone" not in stage.database.log(), "not a byte of it was sent")


def run_was_its_identity(stage: Stage) -> None:
    """Fact 9."""
    stage.screen.fact("The database login exists for this run only")
    answer = run(stage, _psql("SELECT current_user"))
    role = next((word for word in answer.stdout.split() if word.startswith("loopwarden_")), "")
    stage.screen.holds(role != "", "a role that carries the run's id", answer.took_s)
    began = time.monotonic()
    while _roles(stage.database) and time.monotonic() - began < ROLE_GONE_WITHIN_S:
        select.select([], [], [], 0.05)  # the server tells nobody when a role is dropped
    stage.screen.holds(
        not _roles(stage.database) and f'DROP ROLE "{role}"' in stage.database.log(),
        "which the server has no more, now that the run has ended",
        time.monotonic() - began,
    )


def records(stage: Stage, within_s: float) -> None:
    """The end: what the collector knows of the statements."""
    session = _session_of_denied(stage, within_s)
    if not session:
        stage.screen.holds(ok=False, text=f"the collector has the statements in {within_s} s")
        return
    words = ["sessions", "show", session]
    stage.screen.section(f"loopwarden-collector {' '.join(words)}")
    for line in stage.collector.text(*words).splitlines():
        stage.screen.line(f"     {shorten(line)}")
    stage.screen.line()
    kept = b"".join(path.read_bytes() for path in stage.collector.state_dir.glob("*.sqlite*"))
    secrets = (*canaries(), *openbao_setup.canaries())
    stage.screen.holds(
        not any(secret.encode() in kept for secret in secrets),
        "no password of the database or token of OpenBao is in any record",
    )


def _session_of_denied(stage: Stage, within_s: float) -> str:
    """Return the closed session in which the DROP was refused, "" when it does not come."""
    asked = ("sessions", "list", "--loop", LOOP, "--target", "orders", "--verdict", "deny")
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        closed = [row for row in stage.collector.rows(*asked) if row["closed_ms"]]
        if len(closed) >= 2:
            return str(min(closed, key=lambda row: row["opened_ms"])["session_id"])
        select.select([], [], [], 0.1)  # the collector tells nobody when it has stored a record
    return ""
