"""The page on the policy language: its example is a policy, its keys and bounds are the code's."""

import re
from pathlib import Path

from agent.policy import (
    document,
    hours,
    parse,
    parse_issuer,
    parse_loop,
    parse_postgres,
    parse_sql,
    parse_who,
    sql_names,
)
from agent.policy.evaluate_sql import STATEMENTS_MAX
from agent.policy.parse_credential import ACCEPTS
from agent.policy.parse_role import ROLE_KEYS
from agent.policy.parse_target import HTTP_KEYS, TARGET_KEYS
from agent.policy.sql import DANGER
from tests.unit.policy.samples import parse as parse_text

PAGE = (Path(parse.__file__).parent / "README.md").read_text(encoding="utf-8")


def test_the_example_is_a_policy() -> None:
    """Every block of YAML compiles without a warning."""
    examples = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert examples
    for example in examples:
        assert not parse_text(example).warnings


def test_every_key_and_word_is_documented() -> None:
    """Those of targets, rules, roles, effects, logins and shapes."""
    shapes = [shape.value for accepted in ACCEPTS.values() for shape in accepted]
    words = (
        *TARGET_KEYS, *HTTP_KEYS, *parse_postgres.POSTGRES_KEYS, *ROLE_KEYS, *parse_sql.SQL_KEYS,
        *parse_loop.MATCH_KEYS, *DANGER, *parse_postgres.AUTH_METHODS, *shapes,
        *parse_loop.LOOP_KEYS, *parse_loop.RULE_KEYS, *parse_issuer.ISSUER_KEYS,
    )  # fmt: skip
    assert [word for word in words if f"`{word}" not in PAGE] == []
    kinds = (*parse_who.KINDS, *parse_who.CONTAINER_KEYS, *parse_who.RUNTIMES)
    assert [kind for kind in kinds if not re.search(rf"[`{{]{kind}[:`}}]", PAGE)] == []


def test_the_bounds_are_those_of_the_code() -> None:
    """Each number of the table."""
    bounds = PAGE[PAGE.index("## Bounds") :]
    for number in (
        document.NODES_MAX,
        document.DEPTH_MAX,
        parse.TARGETS_MAX,
        parse.LOOPS_MAX,
        parse_loop.RULES_MAX,
        parse_loop.SQL_RULES_MAX,
        parse_loop.RULE_CHARACTERS_MAX,
        parse_sql.NAMES_MAX,
        sql_names.NAME_PATTERN_CHARACTERS_MAX,
        parse_postgres.OPTIONS_CHARACTERS_MAX,
        parse_postgres.DATABASES_MAX,
        parse_postgres.SETTINGS_MAX,
        parse_postgres.FUNCTIONS_MAX,
        STATEMENTS_MAX,
        parse_issuer.ISSUERS_MAX,
        parse_who.CLAIMS_MAX,
        parse_who.VALUES_MAX,
        parse_who.VALUE_CHARACTERS_MAX,
        parse_who.STARS_MAX,
        parse_who.WHO_MAX,
        hours.HOURS_MAX,
        parse_loop.CONCURRENT_MAX,
    ):
        assert f"{number:,}" in bounds, number
