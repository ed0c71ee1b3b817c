"""Replication through a loop: real receivers of the write-ahead log, where the rule grants it."""

from collections.abc import Iterator

import pytest

from tests.system.postgres_site import Site, Stage, postgres_site, postgres_stage

pytestmark = [pytest.mark.system, pytest.mark.kernel, pytest.mark.servers]
SETTINGS = {"wal_level": "logical", "max_wal_senders": "4", "max_replication_slots": "4"}
TARGET = "postgresql://all.test.internal/orders"


@pytest.fixture(scope="module")
def database() -> Iterator[Site]:
    """A server that sends its log, also decoded."""
    with postgres_site(SETTINGS) as site:
        yield site


@pytest.fixture(scope="module")
def whole(database: Site) -> Iterator[Stage]:
    """A worker host."""
    with postgres_stage(database) as stage:
        yield stage


def _written(stage: Stage, note: str) -> str:
    """Write rows with this note, and return where the log ends."""
    stage.site.server.ask(
        "CREATE TABLE IF NOT EXISTS notes (note text);"
        f"INSERT INTO notes SELECT '{note}' FROM generate_series(1, 500)"
    )
    ((end,),) = stage.site.server.ask("SELECT pg_current_wal_flush_lsn()")
    return end


def test_a_physical_stream(whole: Stage) -> None:
    """pg_receivewal gets the log up to where it asked for, and the records have it."""
    received = whole.site.folder / "received"
    received.mkdir()
    received.chmod(0o777)
    whole.site.server.ask("SELECT pg_create_physical_replication_slot('wal', true)")
    end = _written(whole, "physical-note")
    whole.site.server.ask("SELECT pg_switch_wal()")
    command = ["pg_receivewal", "-v", "-d", TARGET, "-D", str(received), "--slot=wal",
               "--no-loop", f"--endpos={end}"]  # fmt: skip
    done = whole.host.run("everything", command, timeout_s=150)
    assert done.returncode == 0, done.stderr
    files = list(received.iterdir())
    assert any(b"physical-note" in file.read_bytes() for file in files), (files, done.stderr)
    (stream,) = whole.rows(lambda row: "START_REPLICATION" in row["resource"])
    rows = whole.operations(1, verb="REPLICATION")
    assert {row["status"] for row in rows} == {"00000"}
    assert stream["outcome"] == "answered"
    assert stream["response_bytes"] > 50_000
    assert "unknown" in stream["effects"]  # of a grammar of its own


def test_a_logical_stream(whole: Stage) -> None:
    """pg_recvlogical makes a slot and gets the rows decoded."""
    base = ["pg_recvlogical", "-d", TARGET, "--slot=decoded"]
    made = whole.host.run("everything", [*base, "--create-slot"], timeout_s=150)
    assert made.returncode == 0, made.stderr
    end = _written(whole, "logical-note")
    command = [*base, "--start", "--no-loop", f"--endpos={end}", "-f", "-"]
    done = whole.host.run("everything", command, timeout_s=150)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("logical-note") == 500
    rows = whole.rows(lambda row: "LOGICAL" in row["resource"], at_least=2)
    assert {row["outcome"] for row in rows} == {"answered"}
    assert len(rows) >= 2


def test_without_a_grant_it_is_refused(whole: Stage) -> None:
    """A loop that may only read gets the rule's words, and the server hears nothing."""
    before = whole.site.server.log()
    command = ["pg_receivewal", "-d", "postgresql://orders.test.internal/orders", "-D", "/tmp",
               "--no-loop"]  # fmt: skip
    done = whole.host.run("report", command, timeout_s=150)
    assert done.returncode != 0
    assert "A replication session is refused" in done.stderr
    rows = whole.operations(1, verb="REPLICATION", outcome="denied")
    assert {row["status"] for row in rows} == {"42501"}
    assert "walsender" not in whole.site.server.log()[len(before) :]
