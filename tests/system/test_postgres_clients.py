"""Real clients, directly and through a loop that may do everything: they say the same, twice.

What is not the same, by design: no password is asked for (libpq's `channel_binding=require`,
`require_auth` and PQconnectionUsedPassword), and `application_name` ends with the run's id.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.servers.clients import client_python
from tests.servers.postgres import SUPERUSER_PASSWORD, programs
from tests.system.postgres_pair import DATABASE, Pair, told
from tests.system.postgres_site import NAME, postgres_site, postgres_stage

pytestmark = [pytest.mark.system, pytest.mark.servers, pytest.mark.timeout(900)]
JAR = "/usr/share/java/postgresql.jar"
MEMORY = "-Xmx256m"
# what autovacuum does between the two ways would show in sizes and plans
SETTINGS = {"max_prepared_transactions": "5", "autovacuum": "off"}


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Who runs programs both ways."""
    with postgres_site(SETTINGS) as site, postgres_stage(site) as stage:
        folder = site.folder / "pair"
        folder.mkdir()
        folder.chmod(0o777)
        yield Pair(stage, folder)


def same(pair: Pair, direct: list[str], through: list[str] | None = None) -> list[str]:
    """Run both, each on a database of its own; assert that they say the same and succeed."""
    pair.fresh()
    first = told(pair.direct(direct))
    pair.fresh()
    second = told(pair.through(through or direct))
    assert second == first
    assert first[-1] == "exit 0"
    return first


def test_psycopg(pair: Pair) -> None:
    """Sync, async, pipelines, cursors, COPY, notifications, cancels, two phases, big values."""
    said = same(pair, [str(client_python()), pair.file("psycopg_use.py")])
    assert len([line for line in said if line.startswith("---")]) == 13


def test_sqlalchemy(pair: Pair) -> None:
    """ORM sessions and reflection, with psycopg and with asyncpg."""
    assert len(same(pair, [str(client_python()), pair.file("sqlalchemy_use.py")])) > 40


def test_psql(pair: Pair) -> None:
    """Backslash commands, variables, copies, gexec, formats, errors within transactions."""
    said = same(pair, ["psql", "-X", "-a", "-f", pair.file("psql_use.sql")])
    assert len(said) > 900


def test_jdbc(pair: Pair) -> None:
    """Prepared from the fifth time on, batches, cursors, keys, metadata, COPY, cancels."""
    program, site = pair.file("JdbcUse.java"), pair.stage.site
    java = ["java", MEMORY, "-cp", JAR, program]
    at = f"jdbc:postgresql://{site.far.address4}:{site.server.port}/{DATABASE}?sslmode=require"
    direct = [*java, at, "postgres", SUPERUSER_PASSWORD]
    said = same(pair, direct, [*java, f"jdbc:postgresql://{pair.name}/{DATABASE}", "postgres"])
    assert len([line for line in said if line.startswith("---")]) == 14


def test_pgbench(pair: Pair) -> None:
    """-S and default; simple, extended and prepared; -C; eight clients; a pipeline."""
    said = same(pair, ["sh", pair.file("pgbench_use.sh"), str(programs())])
    assert len([line for line in said if "failed transactions: 0 " in line]) == 12


def test_dumps(pair: Pair) -> None:
    """pg_dump and pg_restore in each format, in parallel too: what is restored is the same."""
    said = same(pair, ["sh", pair.file("dump_use.sh"), str(programs())])
    assert len(said) == 9
    assert len({said[0], *said[3:7]}) == 1


def test_ways_to_connect(pair: Pair) -> None:
    """Every sslmode, direct TLS, both families of addresses, several hosts, other protocols."""
    asked = replace(pair, settings={"PGDATABASE": "orders"})
    said = told(asked.through([str(client_python()), pair.file("tls_use.py")]))
    assert len(said) == 30
    for line in said[:-2]:
        words, _, came = line.partition(" -> ")
        plain = "sslmode=disable" in words or words == "sslmode=allow"
        assert came == f"tls {not plain} (5000,) protocol 3", line
    assert said[-2:] == ["direct by hand -> postgresql b'R'", "exit 0"]


def test_a_database_that_is_not_there(pair: Pair) -> None:
    """What the server says at a session's start is told as it is."""
    texts = [
        run(["psql", "-X", "-d", "not_there", "-c", "SELECT 1"]).stderr.rpartition("FATAL: ")[2]
        for run in (pair.direct, pair.through)
    ]
    assert texts == [' database "not_there" does not exist\n'] * 2


def test_denials_leave_sessions_usable(pair: Pair) -> None:
    """Each driver gets 42501 in three words of ours, and goes on: the same connection answers."""
    narrow = replace(pair, name=NAME, settings={"PGDATABASE": "orders", "PGUSER": "any"})
    python = [str(client_python()), pair.file("denied_use.py")]
    url = f"jdbc:postgresql://{NAME}/orders"
    java = ["java", MEMORY, "-cp", JAR, pair.file("DeniedUse.java"), url, "any"]
    for command, refused_at_least, answered_at_least in ((python, 60, 55), (java, 45, 14)):
        said = [line.replace("true", "True") for line in told(narrow.through(command, "report"))]
        assert said[-1] == "exit 0", "\n".join(said[-12:])
        refused = [line for line in said if "NO " in line]
        assert len(refused) > refused_at_least
        within = "NO 25P02 False False"  # the server's own: the transaction had failed
        assert all("NO 42501 True True" in line or within in line for line in refused)
        after = [line for line in said if line.startswith("OK") and "5000" in line]
        assert len(after) > answered_at_least


def test_psql_is_told_and_goes_on(pair: Pair) -> None:
    """A script goes on behind a denial, in a transaction with ON_ERROR_ROLLBACK too."""
    narrow = replace(pair, name=NAME, settings={"PGDATABASE": "orders"})
    script = pair.folder / "denied.sql"
    script.write_text(
        "DROP TABLE orders;\nSELECT 1 AS one;\n\\copy customers to /dev/null\nSELECT 2;\n"
        "BEGIN;\nSELECT card FROM customers;\nSELECT 3;\nROLLBACK;\n"
        "\\set ON_ERROR_ROLLBACK on\nBEGIN;\nSELECT card FROM customers;\nSELECT 4;\nCOMMIT;\n"
    )
    script.chmod(0o644)
    done = narrow.through(["psql", "-XAtq", "-f", str(script)], "report")
    assert done.stdout.split() == ["1", "2", "4"]
    assert done.stderr.count("ERROR:  loopwarden: denied by rule") == 4
    assert done.stderr.count("HINT:") == done.stderr.count("DETAIL:") == 4
    assert done.stderr.count("current transaction is aborted") == 1
