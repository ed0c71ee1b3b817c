"""An OpenBao and a PostgreSQL behind it on a far host, and a worker host that uses both."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.certificates import Authority
from tests.servers.https import Answer, Asked, Https, Where, https_server
from tests.servers.openbao import OpenBao, lasting_openbao
from tests.servers.openbao_setup import USERS, Vault, set_up
from tests.system.postgres_site import Site, Stage, postgres_site, postgres_stage

BROKER_UID = 64201
LEDGER = "ledger.test.internal"
POLICY = """
targets:
  orders:  # a user that the vault makes for this run
    protocol: postgres
    address: {{name}}
    ca: {{ca}}
    dial: "{{dial}}"
    durability: {{durability}}
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
  short:  # the same, for seconds
    protocol: postgres
    address: short.test.internal
    ca: {{ca}}
    dial: "{{dial}}"
    durability: {{durability}}
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
      path: database/creds/short
  certified:  # the same server, which takes a certificate of the vault's CA for a password
    protocol: postgres
    address: certified.test.internal
    ca: {{ca}}
    dial: "{{dial}}"
    durability: {{durability}}
    database: orders
    credential:
      provider: vault
      shape: client-certificate
      common_name: app_cert
      address: {url}
      ca: {ca}
      auth: approle
      role_id: {role_id}
      file: {secret_id}
      token_role: loopwarden
      policies: [read]
      path: pki/issue/client
  ledger:  # an API that lets nobody in without such a certificate
    protocol: http
    address: https://{ledger}
    ca: {ca}
    dial: "{api}"
    durability: {{durability}}
    credential:
      provider: vault
      shape: client-certificate
      common_name: reports
      address: {url}
      ca: {ca}
      auth: approle
      role_id: {role_id}
      file: {secret_id}
      token_role: loopwarden
      policies: [read]
      path: pki/issue/client
loops:
  report:
    who: [{{{{user: nobody}}}}]
    rules:
      - {{{{target: orders, allow: {{{{effects: [read], unbounded: true}}}}}}}}
      - {{{{target: short, allow: {{{{effects: [read], unbounded: true}}}}}}}}
      - {{{{target: certified, allow: {{{{effects: [read]}}}}}}}}
      - {{{{target: ledger, allow: {{{{method: GET}}}}}}}}
"""


@dataclass(frozen=True, slots=True)
class VaultSite:
    """The servers, and the policy for them."""

    site: Site
    vault: Vault
    template: str
    ledger: Https

    @property
    def bao(self) -> OpenBao:
        """The vault's server."""
        return self.vault.bao

    def users(self) -> list[str]:
        """Ask the database which users the vault made."""
        return [row[0] for row in self.site.server.ask(USERS)]


@contextmanager
def vault_site() -> Iterator[VaultSite]:
    """Run the servers on a far host."""
    authority = Authority()
    with (
        postgres_site({"log_statement": "all"}) as site,
        lasting_openbao(
            authority, address=site.far.address4, inside=site.far.inside
        ) as bao,
    ):  # fmt: skip
        vault = set_up(bao, site.server)
        vault.tune("12s", "12s", "short")
        secret_id, ca = site.folder / "secret-id", site.folder / "bao-ca.pem"
        private(secret_id, vault.secret_id())
        ca.write_text(authority.pem)
        clients = bao.read("pki/cert/ca")["data"]["certificate"]
        (site.server.folder / "clients.pem").write_text(clients)
        site.server.ask("SELECT pg_reload_conf()")
        where = Where(site.far.address4, 0, site.far.inside, (LEDGER,), clients)
        with https_server(_answer, site.folder, where, authority) as ledger:
            template = POLICY.format(
                url=bao.url, ca=ca, role_id=vault.role_id, secret_id=secret_id,
                ledger=LEDGER, api=ledger.url.removeprefix("https://"),
            )  # fmt: skip
            yield VaultSite(site, vault, template, ledger)


def _answer(asked: Asked) -> Answer:
    return Answer(200, {"hello": asked.shown[0]})


def private(path: Path, text: str) -> None:
    """Write a file that the broker alone reads."""
    path.write_text(text + "\n")
    path.chmod(0o600)
    os.chown(path, BROKER_UID, BROKER_UID)


@contextmanager
def vault_stage(made: VaultSite) -> Iterator[Stage]:
    """Run a collector and a worker host."""
    with postgres_stage(made.site, template=made.template) as stage:
        yield stage
