"""What one rule says of one statement."""

import pytest

from agent.model.sql import Effect, Relation, Statement
from agent.policy.evaluate_sql import DEFAULT_DENY
from tests.unit.policy.statements import (
    ALL,
    BEGIN,
    DO,
    READ,
    allows,
    call,
    ddl,
    denial,
    read,
    write,
)

DENIED = [
    ("tables: [refunds]", read("refunds")),
    ("tables: [refunds]", read("orders", "public.refunds")),
    ("tables: [public.refunds]", read("refunds")),  # its schema may be public
    ("tables: [public.refunds]", write("public.refunds")),
    ("tables: ['pay.*']", read("pay.x")),
    ("tables: [x]", Statement("GRANT", frozenset({Effect.PRIVILEGE}),
                              writes=(Relation("public", "*"),))),
    ("tables: [x]", ddl(kind="DROP SCHEMA")),
    ("schemas: [pay]", ddl(kind="DROP SCHEMA")),
    ("schemas: [pay]", read("pay.x")),
    ("schemas: [pay]", read("x")),
    ("schemas: [pay], tables: [x]", read("x")),
    ("columns: [email]", read("u", columns=("email",))),
    ("columns: [email]", read("u", columns=("u.email",))),
    ("columns: [u.email]", read("u", columns=("email",))),
    ("columns: [u.email]", read("u", columns=("v.email",))),  # v may be another name of u
    ("columns: [u.email]", read("u", columns=("*",))),
    ("columns: [email]", read("u", columns=("u.*",))),
    ("columns: [email]", ddl("u")),
    ("functions: [pg_sleep]", read(calls=(call("pg_sleep", Effect.READ),))),
    ("functions: [pg_catalog.pg_sleep]", read(calls=(call("pg_sleep", Effect.READ),))),
    ("functions: ['pg_*']", read(calls=(call("pg_catalog.pg_sleep", Effect.READ),))),
    ("unbounded: true", write("a", kind="DELETE", unbounded=True)),
    ("effects: [write], tables: [a]", write("a")),
    ("effects: []", BEGIN),
    ("tables: []", read("a")),
]  # fmt: skip
NOT_DENIED = [
    ("tables: [refunds]", read("orders")),
    ("tables: [public.refunds]", read("audit.refunds")),
    ("schemas: [pay]", read("public.x")),
    ("schemas: [pay], tables: [x]", read("pay.y", "public.x")),
    ("columns: [email]", read("u", columns=("name",))),
    ("columns: [u.email]", read("v", columns=("email",))),
    ("columns: [u.email]", read("u", "v", columns=("v.email",))),
    ("functions: [app.pg_sleep]", read(calls=(call("pg_catalog.pg_sleep", Effect.READ),))),
    ("unbounded: true", write("a")),
    ("effects: [write], tables: [a]", read("a")),
    ("effects: [write], tables: [a]", write("b")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "statement"), DENIED)
def test_a_deny_rule_hits_whatever_may_be_meant(rule: str, statement: Statement) -> None:
    """Any one of what each of its keys names; what is not told may be it."""
    assert denial([ALL, f"deny: {{{rule}}}"], statement).rule == "l/1"


@pytest.mark.parametrize(("rule", "statement"), NOT_DENIED)
def test_a_deny_rule_leaves_others_alone(rule: str, statement: Statement) -> None:
    """All its keys must be touched."""
    assert allows([ALL, f"deny: {{{rule}}}"], statement)


COVERED = [
    ("effects: [read], tables: [orders]", read("orders")),
    ("effects: [read], tables: [orders]", read("audit.orders")),  # any schema
    ("effects: [read], tables: ['*.orders']", read("orders")),
    ("effects: [read], tables: [public.orders]", read("public.orders")),
    ("effects: [read], schemas: [public]", read("public.orders")),
    ("effects: [read], schemas: ['*']", read("orders")),
    ("effects: [read], tables: [a]", read()),
    ("effects: [read], columns: [id, 'name*']", read("u", columns=("id", "u.name2"))),
    ("effects: [read], columns: [u.id]", read("u", columns=("u.id",))),
    ("effects: [read], columns: [u.id]", read("u", columns=("id",))),
    ("effects: [write], columns: [id]", write("u", columns=("id",))),
    ("effects: [read], functions: [lower]", read(calls=(call("lower", Effect.READ),))),
    ("effects: [read], functions: ['pg_catalog.*']",
     read(calls=(call("pg_catalog.lower", Effect.READ),))),
    ("effects: [write], unbounded: true", write("a", unbounded=True)),
    ("effects: [unknown]", DO),
]  # fmt: skip
NOT_COVERED = [
    ("effects: [read], tables: [orders]", read("orders", "refunds")),
    ("effects: [read], tables: [public.orders]", read("orders")),
    ("effects: [read], schemas: [public]", read("orders")),
    ("effects: [read], schemas: [public]", read("audit.orders")),
    ("effects: [ddl], tables: [a]", ddl(kind="DROP SCHEMA")),
    ("effects: [ddl], schemas: [a]", ddl(kind="DROP OWNED")),
    ("effects: [read], columns: [id]", read("u", columns=("*",))),
    ("effects: [read], columns: ['*']", read("u", columns=("*",))),
    ("effects: [read], columns: [u.id]", read("u", "v", columns=("id",))),
    ("effects: [read], columns: [u.id]", read("v", columns=("u.id",))),
    ("effects: [read], columns: [u.id]", read("v", columns=("id",))),
    ("effects: [write], columns: [id]", write("u", kind="DELETE")),
    ("effects: [read], functions: [lower]", read(calls=(call("upper", Effect.READ),))),
    ("effects: [read], functions: [app.f]", read(calls=(call("f", Effect.READ),))),
    ("effects: [read, write, ddl]", read(calls=(call("app.f"),))),
    ("effects: [write]", write("a", unbounded=True)),
    ("effects: [write], unbounded: false", write("a", unbounded=True)),
    ("effects: []", read("a")),
    ("effects: [read], tables: []", read()),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "statement"), COVERED)
def test_an_allow_rule_covers_what_it_names(rule: str, statement: Statement) -> None:
    """All effects, tables, columns and functions."""
    assert allows([f"allow: {{{rule}}}"], statement)


@pytest.mark.parametrize(("rule", "statement"), NOT_COVERED)
def test_an_allow_rule_does_not_cover_what_cannot_be_told(rule: str, statement: Statement) -> None:
    """And nothing that it does not name."""
    assert denial([f"allow: {{{rule}}}"], statement).rule == DEFAULT_DENY


def test_a_pinned_search_path_tells_the_schema() -> None:
    """All its schemas must be the rule's; a path that depends on the user tells nothing."""
    rules = ["allow: {effects: [read], tables: ['app.*']}"]
    for path, expected in (
        ("app", True),
        ("app, public", False),
        ('\\"$user\\", app', False),
        ("$user", False),
        ("", False),
    ):
        target = f', settings: {{search_path: "{path}"}}' if path else ""
        assert allows(rules, read("orders"), target=target) is expected
        assert allows(rules, read("app.orders"), target=target)
    both = ["allow: {effects: [read], schemas: [app, public]}"]
    assert allows(both, read("orders"), target=', settings: {search_path: "app, public"}')
    # the server's own tables and functions come first, whatever the path is
    path = ", settings: {search_path: app}"
    for name in ("pg_authid", "pg_stats"):
        assert not allows(rules, read(name), target=path)
        assert allows([*rules, "allow: {effects: [read], schemas: [pg_catalog, app]}"], read(name),
                      target=path)  # fmt: skip
    limited = ["allow: {effects: [read], functions: ['app.*']}"]
    assert not allows(limited, read(calls=(call("lower", Effect.READ),)), target=path)
    says = f"{path}, functions: {{app.report: read}}"
    assert allows(limited, read(calls=(call("report"),)), target=says)
    denied = [READ, "deny: {tables: [audit.orders]}"]
    assert not allows(denied, read("orders"), target=", settings: {search_path: app}")


def test_what_a_function_changes_is_in_none_of_the_tables() -> None:
    """A rule with tables covers a function that changes something only if it names it."""
    says = ", functions: {app.purge: write}"
    purge, notify = call("app.purge"), call("pg_notify", Effect.WRITE)
    orders = "allow: {effects: [read, write], tables: [orders]}"
    for called in (purge, notify):
        for tables in ((), ("orders",)):
            statement = read(*tables, calls=(called,))
            assert not allows([orders], statement, target=says)
            assert allows(["allow: {effects: [read, write]}"], statement, target=says)
            named = "allow: {effects: [read, write], tables: [orders], functions: [%s]}"
            assert allows([named % called.name], statement, target=says)
            assert not allows([named % "other"], statement, target=says)
    assert allows([orders], read("orders", calls=(call("nextval", Effect.WRITE),)))
    assert allows([orders], read(calls=(call("nextval", Effect.WRITE),)))


def test_statistics_are_of_any_table() -> None:
    """What reads the server's statistics touches any table and any column, for deny rules."""
    statistics = read("pg_stats", columns=("*.*", "most_common_vals"))
    assert allows([READ], statistics)
    assert allows(["allow: {effects: [read], tables: [pg_stats]}"], statistics)
    for rule in ("tables: [orders]", "columns: [card]", "columns: [customers.card]"):
        assert not allows([READ, f"deny: {{{rule}}}"], statistics)
    assert not allows(["allow: {effects: [read], columns: [most_common_vals]}"], statistics)
