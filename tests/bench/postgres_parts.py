"""What the PostgreSQL benchmark compares: direct, pgbouncer and our daemon before one server."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.model.grant import Durability
from tests.bench.instance import NUMBERS
from tests.bench.measure import family
from tests.servers.certificates import Authority
from tests.servers.pgbouncer import pgbouncer
from tests.servers.postgres import programs
from tests.system.host import Host, running
from tests.system.postgres_site import Site

NAME = "bench.test.internal"
DATABASE = "bench"
SCALE = 2
CORE = "0"  # of the contender; load and server have the other
LOAD_CORE = "1"
POLICY = """
targets:
  bench:
    protocol: postgres
    address: {name}
    ca: {ca}
    dial: "{dial}"
    durability: {durability}
    database: bench
    credential: {{provider: static, file: {app}, user: app_scram}}
loops:
  job:
    who: [{{user: nobody}}]
    rules:
      - {{target: bench, allow: {{effects: [read, session]}}}}
      - {{target: bench, deny: {{columns: [card]}}}}
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that pgbench and psql can be pointed at."""

    name: str
    environment: Mapping[str, str]
    roots: list[int] = field(default_factory=list)  # whose CPU time is counted, with descendants
    launch: Callable[[list[str]], list[str]] | None = None  # the load as a loop's command

    def command(self, *load: str) -> list[str]:
        """Return how the load is started, on its core."""
        settings = [f"{name}={value}" for name, value in self.environment.items()]
        words = ["taskset", "-c", LOAD_CORE, "env", *settings, str(programs() / load[0]), *load[1:]]
        return words if self.launch is None else self.launch(words)


def direct(site: Site) -> Contender:
    """Return the server itself, over verified TLS."""
    environment = {**site.server.environment(database=DATABASE), "PGHOST": NAME}
    return Contender("direct", environment)


@contextlib.contextmanager
def bouncer(site: Site) -> Iterator[Contender]:
    """Run pgbouncer: session pooling, TLS to the client, verified TLS to the server."""
    authority = Authority()
    with pgbouncer(
        site.server, authority, name=NAME, server_name=NAME, server_ca=site.server.ca
    ) as running_one:
        pin([running_one.pid])
        yield Contender("pgbouncer", running_one.environment(database=DATABASE), [running_one.pid])


@contextlib.contextmanager
def instance(site: Site, durability: Durability, template: str = POLICY) -> Iterator[Contender]:
    """Run the whole daemon on the contender's core; the load is a loop."""
    with daemon(site, durability, template) as host:
        assert host.daemon is not None
        environment = {"PGHOST": NAME, "PGDATABASE": DATABASE, "PGSSLMODE": "require"}
        yield Contender(
            f"loopwarden {durability}",
            environment,
            [host.daemon.pid],
            lambda load: host.run_command("job", load),
        )


@contextlib.contextmanager
def daemon(site: Site, durability: Durability, template: str = POLICY) -> Iterator[Host]:
    """Run the whole daemon on the contender's core."""
    number = next(NUMBERS)
    policy = template.format(
        name=NAME,
        ca=site.folder / "ca.pem",
        dial=f"{site.far.address4}:{site.server.port}",
        app=site.folder / "app",
        admin=site.folder / "admin",
        durability=durability,
    )
    with running(
        f"lwbench{os.getpid() % 10_000}x{number}",
        policy,
        proxy_port=26_900 + 2 * number,
        mark_prefix=0x5C0 + number,
    ) as host:
        assert host.daemon is not None
        pin(family([host.daemon.pid]))
        yield host


def pin(pids: list[int]) -> None:
    """Keep processes on the contender's core."""
    for pid in pids:
        subprocess.run(["taskset", "-acp", CORE, str(pid)], check=True, stdout=subprocess.DEVNULL)


def scratch(folder: Path, name: str) -> Path:
    """Return a new folder in which a loop may write its log."""
    path = folder / name
    path.mkdir(mode=0o777, exist_ok=True)
    path.chmod(0o777)
    return path
