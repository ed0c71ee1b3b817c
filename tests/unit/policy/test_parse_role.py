"""Credentials of provider postgres: the provider reads what the policy has read."""

import json

import pytest

from agent.credentials.postgres.settings import read_settings
from agent.model.ids import TargetName
from agent.policy.parse_role import CONNECTION_LIMIT_MAX
from agent.policy.sql_grants import GRANTS_MAX
from tests.unit.policy.samples import parse, problems

GOOD = """targets:
  db:
    protocol: postgres
    address: orders.internal
    dial: "[::1]:6000"
    ca: /etc/ssl/db.pem
    database: orders
    credential:
      provider: postgres
      admin: loopwarden_admin
      file: /etc/loopwarden/admin
      grants: ["SELECT ON ALL TABLES IN SCHEMA public", "USAGE ON SCHEMA public"]
      member_of: [reporting]
      search_path: [app, public]
      statement_timeout: 5m
      connection_limit: 3
      on_drop: drop
      ttl: 15m
      max_ttl: 2h
"""


def settings(text: str = GOOD) -> dict[str, str]:
    """The settings of the target's credential."""
    credential = parse(text).targets[TargetName("db")].credential
    assert credential is not None
    assert (credential.ttl_s, credential.max_ttl_s) == (900, 7200)
    return dict(credential.settings)


def test_lists_are_json_and_the_target_fills_in() -> None:
    """Address, TLS name, CA and database are the target's."""
    found = settings()
    assert json.loads(found["grants"])[1] == "USAGE ON SCHEMA public"
    assert found["address"] == "[::1]:6000"
    assert found["server_name"] == "orders.internal"
    assert found["ca"] == "/etc/ssl/db.pem"
    assert found["database"] == "orders"
    assert found["statement_timeout"] == "300"


def test_the_provider_takes_what_the_policy_gives() -> None:
    """What loads here is never refused there for its form."""
    read = read_settings(settings())
    assert (read.host, read.port, read.name) == ("::1", 6000, "orders.internal")
    assert read.search_path == ("app", "public")
    assert (read.statement_timeout_s, read.connection_limit) == (300, 3)
    clear = settings(GOOD.replace("    ca: /etc/ssl/db.pem\n", "    tls: none\n"))
    assert read_settings(clear).name == ""
    first = settings(GOOD.replace("database: orders", "databases: [audit, orders]"))
    assert first["database"] == "audit"


MISTAKES = [
    ("admin: loopwarden_admin", "admn: x", "unknown key of a credential 'admn'; did you mean 'adm"),
    ("      admin: loopwarden_admin\n", "", "needs the key 'admin'"),
    ("file: /etc/loopwarden/admin", "file: admin", "an absolute path"),
    ("file: /etc/loopwarden/admin", "ttl_: 1", "the admin's password has one of file"),
    ("SELECT ON ALL TABLES", "ALL ON ALL TABLES", "a.yaml:12:16: grants: 'ALL ON ALL TABLES"),
    ("[reporting]", "['a b']", "a.yaml:13:19: member_of: 'a b'"),
    ("statement_timeout: 5m", "statement_timeout: 300", "write a duration"),
    ("statement_timeout: 5m", "statement_timeout: 8d", "a duration of 1s to 7d"),
    ("connection_limit: 3", "connection_limit: 0", "1 to 10000"),
    ("connection_limit: 3", f"connection_limit: {CONNECTION_LIMIT_MAX + 1}", "1 to 10000"),
    ("on_drop: drop", "on_drop: keep", "write one of reassign, drop, not 'keep'"),
    ("on_drop: drop", "on_drop: drop\n      reassign_to: x", "nothing is reassigned"),
    ("    database: orders\n", "", "a role is made in one database"),
    ("[reporting]", "[pg_read_server_files]", "a.yaml:13:7: member_of: not the admin, and no role"),
    ("[reporting]", "[loopwarden_admin]", "member_of: not the admin"),
    ("connection_limit: 3", "connection_limit: x", "write a number"),
    ("ttl: 15m", "user: x", "provider postgres makes the user"),
    ("ttl: 15m", "shape: client-certificate", "provider postgres does not make shape client-"),
    ("ttl: 15m", "address: x", "write HOST:PORT"),
    ("ttl: 15m", "ca: x.pem", "absolute path"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "said"), MISTAKES)
def test_a_mistake_is_named_with_its_place(right: str, wrong: str, said: str) -> None:
    """At a line of the file, in words that help."""
    assert right in GOOD
    assert said in problems(GOOD.replace(right, wrong, 1))


def test_lists_are_bounded() -> None:
    """The provider's number of grants is taken, one more is not."""
    for count, good in ((GRANTS_MAX, True), (GRANTS_MAX + 1, False)):
        many = ", ".join(['"SELECT ON orders"'] * count)
        text = GOOD.replace(
            '["SELECT ON ALL TABLES IN SCHEMA public", "USAGE ON SCHEMA public"]', f"[{many}]"
        )
        if good:
            assert len(read_settings(settings(text)).grants) == GRANTS_MAX
        else:
            assert f"more than {GRANTS_MAX} in one list" in problems(text)
