"""The whole path of a database: psql in a loop, a real server, the collector's records."""

import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.servers.postgres import canaries
from tests.system.postgres_site import Site, Stage, postgres_site, postgres_stage
from tests.system.written import files

pytestmark = [pytest.mark.system, pytest.mark.kernel, pytest.mark.servers]
CANCELS = 10  # of two workers' connections: each is taken by either
WITHIN_S = 50.0  # of what hangs otherwise; less than the statements sleep
STALL_S = 150.0  # 60 MB in seconds; with 200 ms for every 64 KiB it would take 180 s each way

# a client that cancels as soon as it can: before the second half of a statement, and right behind
# a whole one
CANCELLER = """
import os, select, socket, struct, sys

print(os.environ["LOOPWARDEN_RUN"])
again = 0

def answer(sock):
    data = b""
    while not data.endswith(b"Z\\0\\0\\0\\5I"):
        piece = sock.recv(65536)
        assert piece, data[-500:]
        data += piece
    return data

def connect():
    return socket.create_connection(("app.test.internal", 5432), 50)

for number in range(int(sys.argv[1])):
    sock = connect()
    # what sendall() leaves in buffers is less than half a statement: behind it, the worker has
    # read the first byte, without which a cancel means nothing
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32_768)
    body = struct.pack("!i", 3 << 16) + b"user\\0x\\0database\\0orders\\0\\0"
    sock.sendall(struct.pack("!i", len(body) + 4) + body)
    told = answer(sock)
    at = told.index(b"K\\0\\0\\0\\x0c") + 5
    for text, cut in (("half", 200_000), ("whole", 0)):
        text = f"SELECT pg_sleep(60), '{text}-{number}-{'x' * 400_000}'".encode()
        message = b"Q" + struct.pack("!i", len(text) + 5) + text + b"\\0"
        sock.sendall(message[:cut] if cut else message)
        while True:
            with connect() as cancel:
                cancel.sendall(struct.pack("!ii", 16, 80877102) + told[at : at + 8])
                assert cancel.recv(1) == b""
            # PostgreSQL itself ignores a cancel that comes as it reads a statement
            if cut or select.select([sock], [], [], 5)[0]:
                break
            again += 1
        sock.sendall(message[cut:] if cut else b"")
        got = answer(sock)
        print(got[got.index(b"\\0C") + 2 :][:5].decode())
    sock.close()
print(again)
"""


@pytest.fixture(scope="module")
def database() -> Iterator[Site]:
    """A server that logs every statement."""
    with postgres_site({"log_statement": "all"}) as site:
        yield site


@pytest.fixture(scope="module")
def whole(database: Site) -> Iterator[Stage]:
    """A worker host with two workers."""
    with postgres_stage(database, proxy_workers=2) as stage:
        yield stage


def psql(
    stage: Stage, loop: str, *statements: str, name: str = "orders", timeout_s: float = 60.0
) -> "subprocess.CompletedProcess[str]":
    """Run plain psql as a loop: no user, no password."""
    asked = [word for statement in statements for word in ("-c", statement)]
    command = ["psql", "-X", "-A", "-t", "-d", f"postgresql://{name}.test.internal/orders", *asked]
    return stage.host.run(loop, command, timeout_s=timeout_s)


def test_a_read_is_answered_and_recorded(whole: Stage) -> None:
    """The rows arrive, and the record has process, rule, effects, rows, bytes and duration."""
    done = psql(whole, "report", "SELECT count(*), 'read-1' FROM orders")
    assert (done.returncode, done.stdout) == (0, "5000|read-1\n"), done.stderr
    (row,) = whole.operations(1, resource="SELECT count(*), 'read-1' FROM orders")
    assert (row["verb"], row["status"], row["rule"]) == ("SELECT", "00000", "report/0")
    assert row["rows"] == 1
    assert row["exe"].endswith("psql")
    assert row["duration_ns"] > 0
    assert row["response_bytes"] > 0


@pytest.mark.parametrize(
    ("statement", "effect"),
    [
        ("DROP TABLE refunds", "DROP TABLE"),
        ("DELETE FROM refunds", "unbounded"),
        ("UPDATE orders SET state = 'sent' WHERE 1 = 1", "unbounded"),
        ("WITH x AS (DELETE FROM customers WHERE id = 1 RETURNING id) SELECT * FROM x", "touches"),
        ("SELECT close_order(7)", "close_order"),
        ("CALL close_all()", "close_all"),
        ("DO $$ BEGIN DELETE FROM refunds; END $$", "unknown"),
        ("COPY refunds TO PROGRAM 'cat'", "COPY TO"),
        ("SELECT pg_read_file('/etc/passwd')", "admin"),
        ("SET ROLE orders_owner", "role"),
        ("SELECT card FROM customers", "card"),
        ("SELECT c.to_json FROM customers c", "customers"),
        ("SELECT j FROM (customers CROSS JOIN orders) AS j", "denies"),
        ("SELECT v.x FROM customers NATURAL JOIN (VALUES ('4111', 1)) AS v (card, x)", "customers"),
        ("SELECT histogram_bounds FROM pg_stats WHERE attname = 'card'", "denies"),
        ("SELECT pg_notify('a', 'b') FROM orders", "pg_notify"),
        ("SELECT FROM WHERE", "unknown"),
    ],
)
def test_what_the_rules_do_not_cover_is_refused(whole: Stage, statement: str, effect: str) -> None:
    """SQLSTATE 42501 with rule, reason and next step; the session goes on; the server saw nothing.

    In a transaction too: then the transaction has failed, as with any error.
    """
    asked = ["\\set VERBOSITY verbose", statement, "SELECT 'still here'", "BEGIN", statement,
             "SELECT 'not this'", "ROLLBACK", "SELECT 'here again'"]  # fmt: skip
    done = psql(whole, "report", *asked)
    assert done.stderr.count("ERROR:  42501: loopwarden: denied by rule") == 2, done.stderr
    assert effect in done.stderr
    assert "HINT:" in done.stderr
    assert "25P02" in done.stderr  # the transaction is aborted
    assert done.stdout.split("\n")[:1] == ["still here"]
    assert "here again" in done.stdout
    assert "not this" not in done.stdout
    assert f": {statement}\n" not in whole.site.server.log()


def test_a_result_is_bounded_by_the_rule(whole: Stage) -> None:
    """The rows that max_rows allows, then an error in their place; the next result is whole."""
    done = psql(
        whole, "limited", "SELECT id FROM orders ORDER BY id", "SELECT count(*) FROM orders"
    )
    assert "more than the 10 rows" in done.stderr
    assert done.stdout.split("\n")[-2] == "5000"
    (row,) = whole.operations(1, verb="SELECT", loop="limited", status="54000")
    assert row["rows"] == 10


def test_the_role_is_the_runs_own(whole: Stage) -> None:
    """Two runs have two roles; each is named after its run, in the server's log as well."""
    names = [psql(whole, "report", "SELECT current_user").stdout.strip() for _ in range(2)]
    assert len(set(names)) == 2
    runs = {row["run_id"] for row in whole.operations(2, resource="SELECT current_user")}
    assert all(any(run.lower() in name for run in runs) for name in names)
    assert all(f"user={name}" in whole.site.server.log() for name in names)


def test_ctrl_c_reaches_the_statement(whole: Stage) -> None:
    """psql's CancelRequest is a connection of its own, to either worker: it ends the statement."""
    for number in range(CANCELS):
        command = ["psql", "-X", "-d", "postgresql://app.test.internal/orders",
                   "-c", f"SELECT pg_sleep(60), 'cancel-{number}'"]  # fmt: skip
        process = subprocess.Popen(
            whole.host.run_command("everything", command),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=whole.host.loop_environment(), cwd="/",
        )  # fmt: skip
        asked = f"SELECT 1 FROM pg_stat_activity WHERE query LIKE '%cancel-{number}''%'"
        deadline = time.monotonic() + WITHIN_S
        while not whole.site.server.ask(f"{asked} AND state = 'active' AND usename = 'app_scram'"):
            assert time.monotonic() < deadline, "the statement is not under way"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=WITHIN_S)
        assert "canceling statement due to user request" in said, said


def test_a_cancel_reaches_what_is_held(whole: Stage) -> None:
    """A large statement, half of it read or still being classified, by way of either worker."""
    done = whole.host.run("everything", ["python3", "-c", CANCELLER, str(CANCELS)], timeout_s=200)
    assert done.returncode == 0, done.stderr[-1000:]
    run_id, *states, again = done.stdout.split()
    assert states == ["57014"] * 2 * CANCELS, (done.stdout, done.stderr[-1000:])
    assert int(again) < CANCELS // 2  # what is held hears of the first
    log = whole.site.server.log()
    assert "'half" not in log
    cancelled = whole.operations(2 * CANCELS, run_id=run_id, status="57014")
    assert len(cancelled) == 2 * CANCELS


def test_many_connections_at_once(whole: Stage) -> None:
    """Two hundred, four at a time, each with TLS asked for in the protocol: none hangs."""
    one = "psql -X -A -t -c 'SELECT 1' postgresql://app.test.internal/orders?connect_timeout=100"
    script = f"for n in 1 2 3 4; do (for i in $(seq 50); do {one} || exit 1; done) & done; wait"
    done = whole.host.run("everything", ["sh", "-c", script], timeout_s=200)
    assert done.stdout.count("1\n") == 200, done.stderr[-1000:]


def test_much_data_does_not_stall(whole: Stage) -> None:
    """60 MB up and down, after the receiver was full once."""
    script = (
        "head -c 60000000 /dev/zero | tr '\\0' x | fold -w 1000 | psql -X -q"
        " postgresql://app.test.internal/orders"
        ' -c "CREATE TEMP TABLE t (a text)" -c "COPY t FROM STDIN"'
        ' -c "SELECT sum(length(a)) FROM t" -c "COPY t TO STDOUT" | tail -c 1001 | wc -c'
    )
    done = whole.host.run("everything", ["sh", "-c", script], timeout_s=STALL_S)
    assert done.stdout.strip() == "1001", done.stderr


@pytest.mark.parametrize("address", ["orders.test.internal:5433", "elsewhere.test.internal:5432"])
def test_what_is_no_target_is_closed(whole: Stage, address: str) -> None:
    """Another port of a target, and another name: no connection, and no word of the server."""
    done = whole.host.run(
        "report", ["psql", "-X", "-c", "SELECT 1", f"postgresql://{address}/orders"], timeout_s=60
    )
    assert done.returncode == 2
    assert "1 row" not in done.stdout


def test_outside_the_run_nothing_helps(whole: Stage) -> None:
    """The same psql as the same user, to the server's own address: asked for a password."""
    address = whole.site.server.address
    done = whole.host.bystander(
        ["psql", "-X", "-w", "-c", "SELECT 1", f"postgresql://app_scram@{address}/orders"]
    )
    assert done.returncode == 2
    assert "no password supplied" in done.stderr


def test_no_password_is_anywhere(whole: Stage) -> None:
    """Not in logs, spool, journal, store, the loop's environment, arguments, mounts or answers."""
    script = (
        "cat /proc/self/environ /proc/self/mountinfo; env; psql -X -c 'SELECT 1'"
        " -c 'SELECT rolpassword FROM pg_authid' postgresql://all.test.internal/orders"
        " -c 'SELECT * FROM pg_stat_activity'"
    )
    done = whole.host.run("everything", ["sh", "-c", script])
    whole.operations(1, resource="SELECT * FROM pg_stat_activity")
    places = (whole.host.log, whole.host.state_dir, whole.collector.folder)
    kept = [done.stdout.encode(), done.stderr.encode(), *(data for _, data in files(*places))]
    for canary in canaries():
        assert not any(canary.encode() in content for content in kept)
