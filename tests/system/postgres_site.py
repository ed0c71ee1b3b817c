"""A real PostgreSQL on a host of its own, and a worker host whose loops may use it."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.certificates import Authority
from tests.servers.collector import running_collector
from tests.servers.netns import FarHost, far_host
from tests.servers.postgres import (
    ADMIN_PASSWORD,
    PASSWORD,
    SUPERUSER_PASSWORD,
    Postgres,
    postgres_server,
)
from tests.system.conftest import NUMBERS, Reporting
from tests.system.host import running

NAME = "orders.test.internal"
EVERYTHING = "[read, write, ddl, privilege, session, admin, unknown]"
POLICY = """
targets:
  orders:  # a role for this run
    protocol: postgres
    address: {name}
    ca: {ca}
    dial: "{dial}"
    durability: {durability}
    database: orders
    credential:
      provider: postgres
      admin: loopwarden_admin
      file: {admin}
      grants:
        - SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public
        - USAGE ON ALL SEQUENCES IN SCHEMA public
        - EXECUTE ON ALL ROUTINES IN SCHEMA public
  all:  # whatever the superuser may
    protocol: postgres
    address: all.test.internal
    ca: {ca}
    dial: "{dial}"
    durability: {durability}
    credential: {{provider: static, file: {superuser}, user: postgres}}
  app:  # a login that is there before and after
    protocol: postgres
    address: app.test.internal
    ca: {ca}
    dial: "{dial}"
    durability: {durability}
    credential: {{provider: static, file: {app}, user: app_scram}}
loops:
  report:
    who: [{{user: nobody}}]
    rules:
      - {{target: orders, allow: {{effects: [read]}}}}
      - {{target: orders, allow: {{effects: [read, write], tables: [refunds, orders]}}}}
      - {{target: orders, deny: {{columns: [card]}}}}
  limited:
    who: [{{user: nobody}}]
    rules:
      - {{target: orders, allow: {{effects: [read], max_rows: 10, literals: normalize}}}}
  everything:
    who: [{{user: nobody}}]
    rules:
      - {{target: all, allow: {{effects: {everything}, unbounded: true}}}}
      - {{target: app, allow: {{effects: {everything}, unbounded: true}}}}
      - {{target: orders, allow: {{effects: {everything}, unbounded: true}}}}
"""


@dataclass(frozen=True, slots=True)
class Site:
    """The far host, the database server on it, and the files that a policy for it needs."""

    far: FarHost
    server: Postgres
    folder: Path

    def policy(self, durability: str = "process", template: str = POLICY) -> str:
        """Return the policy of these tests."""
        return template.format(
            name=NAME,
            ca=self.folder / "ca.pem",
            dial=f"{self.far.address4}:{self.server.port}",
            admin=self.folder / "admin",
            superuser=self.folder / "superuser",
            app=self.folder / "app",
            durability=durability,
            everything=EVERYTHING,
        )


@contextmanager
def postgres_site(
    settings: Mapping[str, str] | None = None, *, fsync: bool = False
) -> Iterator[Site]:
    """Run the server on a far host. Its certificate is for every name of the policy."""
    with tempfile.TemporaryDirectory(prefix="lwt-pgsite-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        authority = Authority()
        (folder / "ca.pem").write_text(authority.pem)
        for name, secret in (
            ("admin", ADMIN_PASSWORD), ("superuser", SUPERUSER_PASSWORD), ("app", PASSWORD),
        ):  # fmt: skip
            path = folder / name
            path.write_text(secret + "\n")
            path.chmod(0o600)
            os.chown(path, 64201, 64201)
        with (
            far_host() as far,
            postgres_server(
                authority, name="*.test.internal", address=far.address4, port=5432,
                inside=far.inside, settings=settings, fsync=fsync,
            ) as server,
        ):  # fmt: skip
            yield Site(far, server, folder)


@dataclass(frozen=True, slots=True)
class Stage(Reporting):
    """With the database that its loops use."""

    site: Site


@contextmanager
def postgres_stage(
    site: Site, *, durability: str = "process", proxy_workers: int = 1, template: str = POLICY
) -> Iterator[Stage]:
    """Run a collector and an enrolled worker host."""
    number = next(NUMBERS)
    with tempfile.TemporaryDirectory(prefix="lwt-collector-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        with running_collector(folder) as collector:
            identity = collector.enroll("worker")
            for file in (identity, *identity.iterdir()):
                os.chown(file, 64203, 64203)
            with running(
                f"lwsys{os.getpid() % 10_000}x{number}",
                site.policy(durability, template),
                collector_address=collector.address,
                identity_dir=str(identity),
                proxy_workers=proxy_workers,
            ) as host:
                yield Stage(host, collector, site)
