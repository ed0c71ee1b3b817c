"""Deciding statements: default deny, deny beats allow, what can't be told is not allowed."""

import dataclasses
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.ids import RuleId
from agent.model.reason import Reason
from agent.model.sql import Column, Effect, Statement
from agent.model.verdict import Allow, Deny, Literals
from agent.policy.evaluate import evaluate, evaluator_of
from agent.policy.evaluate_sql import (
    CACHED_STATEMENTS_MAX,
    CACHED_VERDICTS_MAX,
    DEFAULT_DENY,
    STATEMENTS_MAX,
    SqlEvaluator,
)
from agent.policy.sql_words import EXPLANATION_CHARACTERS_MAX
from tests.unit.policy.statements import (
    ALL,
    BEGIN,
    COMMIT,
    DO,
    READ,
    WRITE,
    allows,
    ask,
    call,
    column,
    ddl,
    denial,
    grant,
    operation,
    read,
    write,
)


def test_the_default_is_no() -> None:
    """Without a rule nothing is allowed, not even BEGIN or an empty text."""
    for statements in ((read("orders"),), (BEGIN,), (DO,), ()):
        verdict = denial([], *statements)
        assert (verdict.rule, verdict.reason) == (DEFAULT_DENY, Reason.POLICY_DENIED)


def test_every_statement_of_a_text_must_be_allowed() -> None:
    """By one rule each; the explanation counts the statements."""
    two = [READ, "allow: {effects: [ddl], tables: [scratch]}"]
    assert allows(two, read("orders"), ddl("scratch"), read("x"))
    verdict = denial(two, BEGIN, read("orders"), ddl("orders"))
    assert verdict.explanation == (
        "no rule of loop l allows statement 3 of 3 (DROP TABLE) at target db: "
        "it touches orders, beyond rule l/1"
    )
    assert "add to loop l: {target: db, allow: {effects: [ddl], tables: [orders]}}" in (
        verdict.next_step
    )


def test_one_rule_covers_all_of_a_statement() -> None:
    """Two rules that each have a half do not add up."""
    both = Statement("INSERT", frozenset({Effect.READ, Effect.WRITE}), reads=read("a").reads)
    assert not allows([READ, "allow: {effects: [write]}"], both)
    assert allows([WRITE], both)


def test_what_a_write_shows_or_copies_is_read() -> None:
    """RETURNING, and rows of another table: a rule for writing alone is not enough."""
    returning = dataclasses.replace(write("a"), returns_rows=True, reads=read("a").reads)
    copying = dataclasses.replace(write("a", kind="MERGE"), reads=read("b").reads)
    plain = dataclasses.replace(write("a"), reads=read("a").reads)
    rule = "allow: {effects: [write]}"
    assert not allows([rule], returning)
    assert not allows([rule], copying)
    assert allows([rule], plain)
    assert allows([WRITE], returning, copying, plain)


def test_session_comes_with_any_allow_rule() -> None:
    """BEGIN and SET need no rule of their own, and none of the rule's tables."""
    assert allows(["allow: {effects: [write], tables: [x], functions: [f]}"], BEGIN, COMMIT)
    assert not allows(["allow: {effects: [read]}, mode: shadow"], BEGIN)
    assert not allows([READ, "deny: {effects: [session]}"], BEGIN)


def test_the_rule_of_the_most_dangerous_statement_is_recorded() -> None:
    """Not that of the BEGIN before it."""
    rules = [READ, "allow: {effects: [write], tables: [a]}"]
    verdict = ask(rules, BEGIN, read("b"), write("a"), COMMIT)
    assert verdict.rule == "l/1"


def test_deny_beats_allow_in_every_order() -> None:
    """Whatever allow rules there are."""
    rules = [ALL, "deny: {effects: [ddl]}", "allow: {effects: [ddl], tables: [x]}"]
    for order in itertools.permutations(rules):
        verdict = denial(list(order), ddl("x"))
        assert verdict.rule == f"l/{order.index(rules[1])}"
        assert verdict.explanation == (
            f"rule {verdict.rule} denies the statement (DROP TABLE) at target db: "
            "it has the effect ddl"
        )
        assert allows(list(order), read("x"))


def test_a_rule_with_columns_hides_the_others() -> None:
    """Then no error may quote a row: deny rules and allow rules alike, enforced ones alone."""
    for rules, hides in (
        ([READ], False),
        ([READ, "deny: {columns: [card]}"], True),
        ([READ, "allow: {effects: [write], columns: [state]}"], True),
        ([READ, "deny: {columns: [card]}, mode: shadow"], False),
    ):
        for text in (operation(read("t")), operation(read("t"), read("t"))):
            verdict = SqlEvaluator(grant(*rules)).evaluate(text)
            assert isinstance(verdict, Allow)
            assert verdict.hides_columns is hides


def test_the_settings_of_a_target_hold() -> None:
    """No statement changes one, whatever the rules; resetting and saying the same are no change."""
    target = ", settings: {search_path: app}"
    for settings, expected in (
        ((("search_path", "secret"),), False),
        ((("work_mem", "1GB"), ("search_path", "secret")), False),
        ((("?", "?"),), False),
        ((("search_path", "?"),), False),
        ((("search_path", "app"),), True),
        ((("search_path", None),), True),
        ((("*", None),), True),
        ((("work_mem", "1GB"),), True),
    ):
        one = dataclasses.replace(BEGIN, kind="SET", settings=settings)
        assert allows([ALL], one, target=target) is expected
        assert allows([ALL], one)
    verdict = denial([ALL], dataclasses.replace(BEGIN, settings=(("search_path", "a"),)),
                     target=target)  # fmt: skip
    assert verdict.explanation == (
        "target db fixes its settings, and the statement (BEGIN) may change search_path"
    )


def test_the_target_says_what_functions_do() -> None:
    """A name alone is for calls that name no schema; what is not said is as the list has it."""
    unknown, now = read(calls=(call("app.report"),)), read(calls=(call("now", Effect.READ),))
    says = ", functions: {app.report: read, purge: write, now: admin}"
    assert not allows([READ], unknown)
    assert allows([READ], unknown, target=says)
    assert not allows([READ], now, target=says)
    assert not allows([READ], read(calls=(call("pg_catalog.now", Effect.READ),)), target=says)
    assert not allows([READ], read(calls=(call("report"),)), target=says)
    assert allows([READ], read(calls=(call("report"),)),
                  target=f"{says}, settings: {{search_path: app}}")  # fmt: skip
    assert not allows([WRITE], read(calls=(call("other.purge"),)), target=says)
    assert allows([WRITE], read(calls=(call("purge"),)), target=says)
    assert not allows([READ], read(calls=(call("purge"),)), target=says)


def test_an_unknown_statement_may_be_what_a_deny_rule_means() -> None:
    """Where a rule allows unknown, any deny rule still stands; the next step says how to tell."""
    verdict = denial([ALL, "deny: {tables: [refunds]}"], DO)
    assert verdict.rule == "l/1"
    assert verdict.explanation == (
        "rule l/1 may deny the statement (DO) at target db: nobody can tell what it does, "
        "the body of DO is a program"
    )
    verdict = denial([ALL, "deny: {effects: [ddl]}"], read(calls=(call("app.f"),)))
    assert "no list has the function app.f" in verdict.explanation
    assert "functions: {app.f: EFFECT}" in verdict.next_step
    assert allows([ALL], DO)


def test_an_unbounded_statement_is_told_to_have_a_where() -> None:
    """And what the policy would have to say."""
    verdict = denial([WRITE], write("orders", kind="DELETE", unbounded=True))
    assert verdict.explanation == (
        "no rule of loop l allows the statement (DELETE) at target db: it has no WHERE condition "
        "that could be false, which needs unbounded: true, beyond rule l/0"
    )
    assert verdict.next_step == (
        "Add a WHERE condition. If the loop needs this, ask whoever keeps the policy to add to "
        "loop l: {target: db, allow: {effects: [write], tables: [orders], unbounded: true}}"
    )


def test_the_nearest_rule_is_named() -> None:
    """The one that has most of the statement's effects."""
    rules = ["allow: {effects: [ddl]}", "allow: {effects: [read], tables: [a]}"]
    assert "it touches b, beyond rule l/1" in denial(rules, read("b")).explanation


def test_the_yaml_of_a_next_step_allows_the_statement() -> None:
    """It can be pasted: odd names are quoted for SQL and for YAML."""
    for statement in (
        read('we"ird.Or,der}s', "public.a"),
        write("a", unbounded=True),
        ddl("Ünï"),
        read(calls=(call("f", Effect.ADMIN),)),
    ):
        step = denial([], statement).next_step
        rule = step[step.index("allow: ") : step.rindex("}")]
        assert allows([rule], statement), rule


def test_what_a_text_says_never_makes_an_explanation_long_or_odd() -> None:
    """Names are cut and printable."""
    verdict = denial([READ], read(*(f"{'x' * 500}{number}\x1b[31m\n" for number in range(8))),
                     write("y" * 5_000))  # fmt: skip
    assert len(verdict.explanation) <= EXPLANATION_CHARACTERS_MAX
    assert len(verdict.next_step) <= EXPLANATION_CHARACTERS_MAX
    assert (verdict.explanation + verdict.next_step).isprintable()


@pytest.mark.parametrize("text", ["", " ;\n;", "-- ping", "/* a */ ; -- b\n", "/**/", "/*/ */"])
def test_a_text_of_nothing_is_allowed_with_any_rule(text: str) -> None:
    """Drivers ping so."""
    assert isinstance(ask([READ], text=text), Allow)
    assert isinstance(ask([], text=text), Deny)


@pytest.mark.parametrize(
    "text", ["select 1", "/* a /* b */ drop */", "/* a", "-- a\ndrop", "/**/x"]
)
def test_a_text_that_nobody_classified_is_denied(text: str) -> None:
    """No statements, yet it is not empty."""
    assert "nobody has told" in denial_of_text(text)


def denial_of_text(text: str) -> str:
    verdict = ask([ALL], text=text)
    assert isinstance(verdict, Deny)
    return verdict.explanation


def test_too_many_statements_are_denied() -> None:
    """The limit's number is decided, one more is not."""
    assert allows([READ], *[BEGIN] * STATEMENTS_MAX)
    assert "more than 1000 statements" in (
        denial([READ], *[BEGIN] * (STATEMENTS_MAX + 1)).explanation
    )


def test_row_limits_and_literals_are_the_strictest() -> None:
    """Of all rules that cover a statement, and of all statements; BEGIN has no limit."""
    rules = ["allow: {effects: [read], max_rows: 10}",
             "allow: {effects: [read], tables: [a], max_rows: 5, literals: normalize}",
             "allow: {effects: [write]}"]  # fmt: skip
    assert ask(rules, read("b")) == Allow(RuleId("l/0"), 10, Literals.KEEP)
    assert ask(rules, read("a")) == Allow(RuleId("l/0"), 5, Literals.NORMALIZE)
    assert ask(rules, read("b"), read("a")) == Allow(RuleId("l/0"), 5, Literals.NORMALIZE)
    assert ask(rules, write("a")) == Allow(RuleId("l/2"), 0, Literals.KEEP)
    assert ask(rules, BEGIN).literals is Literals.NORMALIZE
    assert isinstance(begin := ask(rules, BEGIN), Allow)
    assert begin.max_rows == 0
    assert denial(rules, DO).literals is Literals.NORMALIZE
    assert denial([READ, "deny: {tables: [x], literals: normalize}"], DO).literals is (
        Literals.NORMALIZE
    )


@pytest.mark.parametrize("mode", ["observe", "shadow"])
def test_rules_that_are_not_enforced_never_decide(mode: str) -> None:
    """Neither way; they are reported."""
    one = grant(f"allow: {{effects: [write]}}, mode: {mode}", READ,
                f"deny: {{tables: [a]}}, mode: {mode}")  # fmt: skip
    assert isinstance(evaluate(one, operation(write("b"))), Deny)
    assert isinstance(evaluate(one, operation(read("a"))), Allow)
    evaluator = SqlEvaluator(one)
    assert evaluator.observed(operation(read("a"))) == (one.rules[2],)
    assert evaluator.observed(operation(write("a"))) == (one.rules[0], one.rules[2])
    [judged] = evaluator.explain("…", (read("a"),)).judgements
    assert [rule.rule_id for rule in judged.matched] == ["l/1", "l/2"]
    assert SqlEvaluator(grant(READ)).observed(operation(read("a"))) == ()


def test_the_cache_is_bounded_and_changes_no_answer() -> None:
    """The limit's worth of statements stay; the same text with other ones is decided anew."""
    evaluator = evaluator_of(grant(READ))
    assert isinstance(evaluator, SqlEvaluator)
    for number in range(CACHED_VERDICTS_MAX + 1):
        statement = read("a") if number % 2 else write("a")
        asked = operation(statement, text=str(number))
        first = evaluator.evaluate(asked)
        assert evaluator.evaluate(asked) is first
        assert isinstance(first, Allow) == bool(number % 2)
    assert len(evaluator._cache) == CACHED_VERDICTS_MAX
    assert isinstance(evaluator.evaluate(operation(DO, text="1")), Deny)
    assert isinstance(evaluator.evaluate(operation(read("a"), text="1")), Allow)
    for size, kept in ((CACHED_STATEMENTS_MAX, True), (CACHED_STATEMENTS_MAX + 1, False)):
        asked = operation(*[read("a")] * size)
        evaluator.evaluate(asked)
        assert (id(asked.statements) in evaluator._cache) is kept
    nothing = operation(text=";")
    assert isinstance(evaluator.evaluate(nothing), Allow)
    assert isinstance(evaluator.evaluate(operation(text="x")), Deny)


NAMES = st.sampled_from(["a", "b", "public.a", "audit.a", "audit.b"])
STATEMENTS = st.builds(
    lambda kind, effects, reads, columns, calls, unbounded: Statement(
        kind,
        frozenset(effects),
        reads=tuple(read(*reads).reads),
        columns_read=tuple(map(column, columns)),
        columns_written=(Column("a", "id"),) if unbounded else (),
        calls=tuple(calls),
        unbounded=unbounded,
    ),
    st.sampled_from(["SELECT", "DELETE", ""]),
    st.sets(st.sampled_from(Effect), min_size=1, max_size=3),
    st.lists(NAMES, max_size=2),
    st.lists(st.sampled_from(["id", "a.id", "*", "email"]), max_size=2),
    st.lists(st.sampled_from([call("f"), call("lower", Effect.READ)]), max_size=1),
    st.booleans(),
)
EFFECTS = st.lists(st.sampled_from([each.value for each in Effect]), min_size=1, max_size=7).map(
    lambda effects: f"effects: [{', '.join(effects)}]"
)
EXTRAS = st.lists(
    st.sampled_from(
        ["tables: [a]", "tables: ['public.*', b]", "schemas: [public]", "columns: [id]",
         "columns: [a.email]", "functions: [lower]", "unbounded: true", "literals: normalize"]
    ),
    max_size=3,
    unique_by=lambda one: one.partition(":")[0],
)  # fmt: skip
RULES = st.builds(
    lambda kind, effects, extras: f"{kind}: {{{', '.join([effects, *extras])}}}",
    st.sampled_from(["allow", "deny"]),
    EFFECTS,
    EXTRAS,
)


@given(st.lists(RULES, max_size=5), STATEMENTS, RULES)
def test_adding_a_deny_never_allows_more(rules: list[str], one: Statement, more: str) -> None:
    """And adding an allow never allows less."""
    deny = "deny" + more[more.index(":") :]
    if allows([*rules, deny], one):
        assert allows(rules, one)
    if allows(rules, one):
        assert allows([*rules, more.replace("deny", "allow", 1)], one)


@given(st.lists(RULES, max_size=5), st.lists(STATEMENTS, min_size=1, max_size=4))
def test_a_text_is_allowed_as_its_statements_are(rules: list[str], many: list[Statement]) -> None:
    """Splitting a text into several changes nothing."""
    assert allows(rules, *many) == all(allows(rules, one) for one in many)


@given(st.lists(RULES, max_size=5), st.lists(STATEMENTS, min_size=1, max_size=3), st.randoms())
def test_order_never_matters(
    rules: list[str], many: list[Statement], shuffled: random.Random
) -> None:
    """Neither of the rules nor of the statements; row limits and literals are the same too."""
    before = ask(rules, *many)
    shuffled.shuffle(rules)
    shuffled.shuffle(many)
    after = ask(rules, *many)
    assert isinstance(after, type(before))
    assert before.literals is after.literals


@given(st.lists(RULES.filter(lambda rule: rule.startswith("deny")), max_size=4), STATEMENTS)
def test_without_an_allow_rule_nothing_is_allowed(rules: list[str], one: Statement) -> None:
    """The default is deny, whatever else is said."""
    assert not allows(rules, one)
