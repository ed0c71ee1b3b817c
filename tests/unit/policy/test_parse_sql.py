"""Rules for targets that speak SQL: their keys, their words, and no others."""

import pytest

from agent.model.ids import LoopName
from agent.model.sql import Effect
from agent.model.verdict import Literals
from agent.policy.parse_loop import RULE_CHARACTERS_MAX, SQL_RULES_MAX
from agent.policy.parse_sql import NAMES_MAX
from agent.policy.schema import SqlRulePolicy
from tests.unit.policy.samples import parse, problems

TARGETS = """targets:
  db: {protocol: postgres, address: db.example}
  api: {protocol: http, address: https://a.example}
"""
GOOD = f"""{TARGETS}loops:
  l:
    rules:
      - {{target: db, allow: {{effects: [read], tables: [orders, 'public.*'], max_rows: 100}}}}
      - {{target: db, deny: {{columns: users.email, unbounded: true, literals: normalize}}}}
      - {{target: api, allow: {{method: GET}}}}
"""


def test_rules_are_read() -> None:
    """Each key arrives; a text is a list of one."""
    [loop] = parse(GOOD).loops.values()
    assert loop.rules[0].sql == SqlRulePolicy(
        (Effect.READ,), ("orders", "public.*"), None, None, None, None, 100, Literals.KEEP
    )
    assert loop.rules[1].sql == SqlRulePolicy(
        None, None, None, ("users.email",), None, True, 0, Literals.NORMALIZE
    )
    assert loop.rules[2].sql is None


def test_loops_may_come_before_their_targets() -> None:
    """What keys a rule has depends on its target, wherever that stands."""
    targets, loops = GOOD.split("loops:")
    assert parse(f"loops:{loops}", targets).revision == parse(GOOD).revision
    assert parse(f"loops:{loops}{targets}").revision == parse(GOOD).revision


MISTAKES = [
    ("effects: [read]", "effects: [reed]", "a.yaml:7:40: unknown effect 'reed'; did you mean"),
    ("effects: [read]", "efects: [read]", "unknown key of what a rule matches 'efects'; did you"),
    ("effects: [read], ", "", "an allow rule names its effects, of read, write, ddl, privilege"),
    ("[orders,", "[Orders,", "a.yaml:7:56: unquoted names are lower case"),
    ("[orders,", "[a.b.c,", "at most two parts"),
    ("tables: [orders, 'public.*']", "schemas: [a.b]", "one part only"),
    ("max_rows: 100", "max_rows: 0", "max_rows is 1 or more"),
    ("max_rows: 100", "max_rows: -1", "write a number"),
    ("max_rows: 100", "literals: drop", "unknown value 'drop'"),
    ("max_rows: 100", "method: GET",
     "a.yaml:7:29: a rule for protocol postgres has no method; it has effects, tables, schemas"),
    ("method: GET", "effects: [read]", "a rule for protocol http has no effects; it has method,"),
    ("columns: users.email, unbounded: true, ", "", "name one of effects, tables, schemas"),
    ("unbounded: true", "unbounded: false", "a deny rule says unbounded: true, or nothing"),
    ("unbounded: true", "max_rows: 5", "max_rows limits what a rule allows"),
    ("target: api,", "target: apy,", "unknown target 'apy'; did you mean 'api'?"),
    ("target: db, deny", "target: db, hold", "hold: needs a later version"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "said"), MISTAKES)
def test_a_mistake_is_named_with_its_place(right: str, wrong: str, said: str) -> None:
    """At a line of the file, in words that help."""
    assert right in GOOD
    assert said in problems(GOOD.replace(right, wrong, 1))


def test_a_rule_of_no_target_is_one_problem() -> None:
    """Its keys are not judged: nobody knows whose they should be."""
    assert len(problems(GOOD.replace("target: db, deny", "target: dbx, deny")).splitlines()) == 1


def test_lists_and_rules_are_bounded() -> None:
    """The limit's number is taken, one more is not."""
    for count, good in ((NAMES_MAX, True), (NAMES_MAX + 1, False)):
        text = GOOD.replace("[orders,", f"[{', '.join(['t'] * (count - 1))},")
        if good:
            parse(text)
        else:
            assert f"more than {NAMES_MAX} in one list" in problems(text)
    rule = "      - {target: db, allow: {effects: []}}\n"
    loops = f"{TARGETS}loops:\n  l:\n    rules:\n"
    parse(loops + rule * SQL_RULES_MAX)
    assert f"at most {SQL_RULES_MAX} rules for SQL" in problems(loops + rule * (SQL_RULES_MAX + 1))


def test_the_characters_of_a_loop_are_bounded() -> None:
    """At 8,192, names with two characters of framing each; not at one more."""
    name = f"x*{'x' * 252}"
    rule = f"      - {{target: db, deny: {{tables: ['{name}']}}}}\n"
    loops = f"{TARGETS}loops:\n  l:\n    rules:\n{rule * (RULE_CHARACTERS_MAX // 256)}"
    assert len(parse(loops).loops[LoopName("l")].rules) == RULE_CHARACTERS_MAX // 256
    more = loops.replace(name, name + "x", 1)
    assert f"over {RULE_CHARACTERS_MAX} characters" in problems(more)
