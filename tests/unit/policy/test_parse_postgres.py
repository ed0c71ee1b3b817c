"""Targets of protocol postgres: every option arrives, every mistake has its place."""

import pytest

from agent.model.credential import Shape
from agent.model.grant import PostgresOptions, UpstreamTls
from agent.model.ids import TargetName
from agent.model.sql import Effect
from agent.policy.parse_postgres import (
    DATABASES_MAX,
    FUNCTIONS_MAX,
    NAME_BYTES_MAX,
    OPTIONS_CHARACTERS_MAX,
    SETTINGS_MAX,
)
from agent.policy.schema import TargetPolicy
from tests.unit.policy.samples import parse, problems

GOOD = """targets:
  db:
    protocol: postgres
    address: orders.internal
    ca: /etc/ssl/db.pem
    credential: {provider: static, file: /etc/loopwarden/db, user: app}
    database: orders
    databases: [orders, audit]
    read_only: true
    settings: {statement_timeout: 5s, search_path: app}
    functions: {app.report: read, '"Odd"': admin}
    auth: [scram-sha-256, md5]
"""


def target(text: str = GOOD) -> TargetPolicy:
    """The target db."""
    return parse(text).targets[TargetName("db")]


def test_a_target_is_read() -> None:
    """The port, TLS and the shape have defaults; pairs are in the order of keys."""
    db = target()
    assert (db.protocol, db.host, db.port) == ("postgres", "orders.internal", 5432)
    assert (db.dial_host, db.dial_port) == ("orders.internal", 5432)
    assert db.tls is UpstreamTls.VERIFY_FULL
    assert db.credential is not None
    assert (db.credential.shape, db.credential.user) == (Shape.PASSWORD, "app")
    assert db.postgres == PostgresOptions(
        "orders",
        ("orders", "audit"),
        True,
        (("search_path", "app"), ("statement_timeout", "5s")),
        (('"Odd"', Effect.ADMIN), ("app.report", Effect.READ)),
        ("md5", "scram-sha-256"),
    )


def test_the_least_target() -> None:
    """Nothing but protocol and address; an HTTP target has no such options."""
    both = parse(
        "targets:\n  db: {protocol: postgres, address: '[::1]:6000', tls: none}\n"
        "  api: {protocol: http, address: https://a.example}\n"
    )
    db, api = both.targets.values()
    assert (db.host, db.port, db.tls) == ("::1", 6000, UpstreamTls.NONE)
    assert db.postgres == PostgresOptions()
    assert api.postgres is None


MISTAKES = [
    ("address: orders.internal", "address: https://orders", "a.yaml:4:14: write HOST[:PORT]"),
    ("address: orders.internal", "address: orders:0", "1 to 65535"),
    ("address: orders.internal", "address: 'orders:'", "write HOST[:PORT]"),
    ("read_only: true", "readonly: true", "did you mean 'read_only'?"),
    ("read_only: true", "read_only: yes", "write true or false"),
    ("ca: /etc", "tls: none\n    ca: /etc", "a CA without TLS"),
    ("ca: /etc", "tls: require\n    ca: /etc", "unknown value 'require'"),
    ("database: orders", "database: other", "a.yaml:7:5: database is none of databases"),
    ("database: orders", f"database: {'x' * 64}", f"at most {NAME_BYTES_MAX} bytes"),
    ("[orders, audit]", "[]", "1 to 32 names"),
    ("[orders, audit]", f"[orders, {'ö' * 32}]", f"at most {NAME_BYTES_MAX} bytes"),
    ("statement_timeout", "Statement-Timeout", "not the name of a setting"),
    ("statement_timeout: 5s", "client_encoding: SQL_ASCII", "'client_encoding' is not a policy's"),
    ("statement_timeout: 5s", "default_transaction_read_only: 'on'", "write read_only: true"),
    ("statement_timeout: 5s", "statement_timeout: [5s]", "must be a text"),
    ("app.report: read", "app.*: read", "a.yaml:11:17: write NAME or SCHEMA.NAME of one function"),
    ("app.report: read", "App: read", "write NAME or SCHEMA.NAME of one function"),
    ("app.report: read", "app.report: reed", "did you mean 'read'?"),
    ("scram-sha-256, md5", "scram-sha256", "did you mean 'scram-sha-256'?"),
    ("scram-sha-256, md5", "", "name one or more"),
    ("user: app", "user: app, shape: bearer",
     "a.yaml:6:73: protocol postgres does not take shape bearer; it takes password, client-"),
    ("user: app", "shape: client-certificate", "provider static does not make shape client-"),
    ("file: /etc/loopwarden/db, user: app", "file: /etc/loopwarden/db", "password needs a user"),
    ("protocol: postgres", "protocol: http", "unknown key of target 'db' 'database'"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "said"), MISTAKES)
def test_a_mistake_is_named_with_its_place(right: str, wrong: str, said: str) -> None:
    """At a line of the file, in words that help."""
    assert right in GOOD
    assert said in problems(GOOD.replace(right, wrong, 1))


def test_an_http_target_takes_no_password() -> None:
    """What a protocol does not accept is refused at load."""
    text = (
        "targets:\n  a:\n    protocol: http\n    address: https://a.example\n"
        "    credential: {provider: static, file: /x, shape: password, user: u}\n"
    )
    assert "a.yaml:5:46: protocol http does not take shape password" in problems(text)


def test_a_password_in_clear_text_is_warned_of() -> None:
    """As for HTTP: it loads, and every use is refused until the target says more."""
    text = GOOD.replace("ca: /etc/ssl/db.pem", "tls: none")
    [warning] = parse(text).warnings
    assert "allow_cleartext: true" in warning.text
    assert not parse(text.replace("tls: none", "tls: none\n    allow_cleartext: true")).warnings


def test_options_are_bounded() -> None:
    """The limit's number is taken, one more is not."""
    for old, form, most, said in (
        ("[orders, audit]", "[orders{}]", DATABASES_MAX, "1 to 32 names"),
        ("{statement_timeout: 5s, search_path: app}", "{{a: b{}}}", SETTINGS_MAX, "32 settings"),
        ("{app.report: read, '\"Odd\"': admin}", "{{a: read{}}}", FUNCTIONS_MAX, "100 functions"),
    ):
        value = "" if "orders" in form else ": read"
        for count, good in ((most - 1, True), (most, False)):
            more = "".join(f", n{number}{value}" for number in range(count))
            text = GOOD.replace(old, form.format(more))
            if good:
                parse(text)
            else:
                assert said in problems(text)


def test_options_together_are_bounded() -> None:
    """At 4,096 characters they load, at one more they do not."""
    text = GOOD.replace("statement_timeout: 5s", "a.a: FILL, a.b: FILL")
    used = sum(
        len(one) + 2
        for one in ("orders", "orders", "audit", "search_path", "app", "app.report", "read",
                    '"Odd"', "admin", "a.a", "", "a.b", "")
    )  # fmt: skip
    left = OPTIONS_CHARACTERS_MAX - used
    for size, good in ((left, True), (left + 1, False)):
        filled = text.replace("FILL", "x" * (left // 2), 1).replace(
            "FILL", "x" * (size - left // 2)
        )
        if good:
            parse(filled)
        else:
            assert f"over {OPTIONS_CHARACTERS_MAX} characters" in problems(filled)
