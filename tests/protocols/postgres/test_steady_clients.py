"""PostgreSQL's own programs through the steady half: they do the same as without it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.model.audit import Outcome
from tests.protocols.postgres.steady_rig import Answers, Proxy
from tests.servers.certificates import Authority
from tests.servers.postgres import Postgres, as_owner, postgres_server, programs


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """Run a server with pgbench's tables."""
    with postgres_server(Authority(), address="") as running:
        argv = as_owner(str(programs() / "pgbench"), "-i", "-h", str(running.folder), "orders")
        subprocess.run(argv, check=True, capture_output=True)
        yield running


@pytest.fixture
def proxy(server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Listen for clients in a folder of its own."""
    folder = tmp_path_factory.mktemp("s")
    listening = Proxy(folder, server.folder / ".s.PGSQL.5432", Answers)
    yield listening
    listening.close()


def program(name: str, folder: Path, *arguments: str) -> list[str]:
    """Return a program's command line, for the database `orders`."""
    return [str(programs() / name), "-h", str(folder), "-U", "postgres", *arguments]


def check(proxy: Proxy) -> None:
    """Assert that every session kept its promises and every operation has its outcome."""
    assert proxy.plays
    for play in proxy.plays:
        assert not play.problems
        assert not play.unsettled
        assert all(outcome.outcome is Outcome.ANSWERED for outcome in play.outcomes)


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
@pytest.mark.parametrize("more", [[], ["-S"], ["-C", "-S"]])
def test_pgbench_runs_in_all_its_modes(proxy: Proxy, mode: str, more: list[str]) -> None:
    """No transaction fails, and each statement has a record."""
    argv = program(
        "pgbench", proxy.folder, "-n", "-M", mode, "-c", "3", "-t", "10", *more, "orders"
    )
    done = proxy.run(argv)
    assert done.returncode == 0, done.stdout
    assert b"number of transactions actually processed: 30/30" in done.stdout
    statements = sum(len(play.outcomes) for play in proxy.plays)
    assert statements >= 30 * (1 if "-S" in more else 7)
    check(proxy)


def test_pgbench_runs_pipelines(proxy: Proxy, tmp_path: Path) -> None:
    """libpq's pipeline mode: many statements before a Sync."""
    script = tmp_path / "pipeline.sql"
    script.write_text("\\startpipeline\n" + "SELECT 1;\nSELECT 2;\n" * 50 + "\\endpipeline\n")
    for mode in ("extended", "prepared"):
        argv = program("pgbench", proxy.folder, "-n", "-M", mode, "-t", "5", "-f", str(script))
        done = proxy.run([*argv, "orders"])
        assert done.returncode == 0, done.stdout
    assert sum(len(play.outcomes) for play in proxy.plays) == 2 * 5 * 100
    check(proxy)


def test_psql_says_the_same(server: Postgres, proxy: Proxy) -> None:
    """Its catalog queries, COPY both ways, errors, descriptions, cursors by FETCH_COUNT."""
    script = b"""
        \\d
        \\d+ orders
        \\df
        \\l
        SELECT 1/0;
        SELECT 1 AS a, 'b' AS b \\gdesc
        \\set FETCH_COUNT 7
        SELECT id FROM orders ORDER BY id LIMIT 30;
        CREATE TEMP TABLE c (x int, y text);
        \\copy c FROM stdin
1\tone
2\ttwo
\\.
        COPY c TO stdout;
        \\bind 5
        SELECT $1::int;
    """
    argv = ["--no-psqlrc", "-a", "orders"]
    expected = subprocess.run(
        program("psql", server.folder, *argv),
        input=script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    done = proxy.run(program("psql", proxy.folder, *argv), script)
    assert sorted(done.stdout.splitlines()) == sorted(expected.stdout.splitlines())
    assert done.returncode == expected.returncode
    assert b"division by zero" in done.stdout
    assert b"2\ttwo" in done.stdout
    check(proxy)


def test_a_dump_is_the_same_and_can_be_restored(server: Postgres, proxy: Proxy) -> None:
    """pg_dump gives the same bytes through us, and psql restores them through us."""
    server.ask("CREATE DATABASE copy_of_orders")
    argv = ["--no-owner", "--no-privileges", "orders"]
    direct = subprocess.run(
        program("pg_dump", server.folder, *argv), check=True, capture_output=True
    ).stdout
    dumped = proxy.run(program("pg_dump", proxy.folder, *argv))
    assert dumped.returncode == 0
    assert _stable(dumped.stdout) == _stable(direct)
    arguments = ["--no-psqlrc", "-q", "-v", "ON_ERROR_STOP=1", "copy_of_orders"]
    restored = proxy.run(program("psql", proxy.folder, *arguments), dumped.stdout)
    assert restored.returncode == 0, restored.stdout[-2000:]
    count = "SELECT count(*), sum(aid) FROM pgbench_accounts"
    assert server.ask(count, database="copy_of_orders") == server.ask(count)
    check(proxy)


def _stable(dump: bytes) -> list[bytes]:
    """Leave out the key that is random in each dump."""
    return [line for line in dump.splitlines() if not line.startswith((b"\\restrict", b"\\unre"))]
