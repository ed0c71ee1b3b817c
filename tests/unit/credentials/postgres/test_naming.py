"""Names and comments of roles."""

from agent.credentials.postgres.naming import (
    COMMENT_CHARACTERS_MAX,
    FIND,
    ROLES,
    comment,
    is_role_name,
    lease_ms,
    literal,
    parse_comment,
    role_name,
)
from agent.credentials.spec import SQL_ROWS_MAX, Wanted
from agent.model.credential import Shape
from agent.model.ids import LeaseId, LoopName, RunId, TargetName, ulid_time

WANTED = Wanted(
    LeaseId("01JD000000ZZZZZZZZZZZZZZZZ"),
    RunId("01JD0000000000000000000001"),
    LoopName("l" * 64),
    TargetName("t" * 64),
    {},
    Shape.PASSWORD,
    "",
    "",
)


def test_a_name_is_known_from_the_lease() -> None:
    """Run and lease give it; it fits a name, and the sweep's pattern."""
    name = role_name(WANTED)
    assert name == "loopwarden_01jd0000000000000000000001_zzzzzzzzzzzzzzzz"
    assert is_role_name(name)
    assert len(name) == 54


def test_other_names_do_not_fit() -> None:
    """Nobody else's role is of the form, by one letter less or more."""
    name = role_name(WANTED)
    others = (name[:-1], name + "z", name.upper(), "x" + name, "loopwarden_admin", name[:-1] + "u")
    assert not any(map(is_role_name, others))


def test_comments_are_read_back() -> None:
    """Whose it is, and how old; at their longest they fit what is read of them."""
    text = comment(WANTED, "h" * 64)
    assert len(text) <= COMMENT_CHARACTERS_MAX
    mark = parse_comment(text)
    assert mark is not None
    assert (mark.host, mark.lease_id) == ("h" * 64, WANTED.lease_id)
    assert ulid_time(mark.lease_ms) == WANTED.lease_id[:10]
    assert lease_ms(WANTED.lease_id) == mark.lease_ms


def test_other_comments_are_nobodys() -> None:
    """Anything else is not of ours."""
    good = comment(WANTED, "host")
    others = (
        *(None, b"x", "", "x", "[]", "{}", "[" * 10_000, good[:-1]),
        good.replace("loopwarden", "x"),
        good.replace(WANTED.lease_id, "no ulid"),
        good.replace('"host": "host"', '"host": 1'),
    )
    for text in others:
        assert parse_comment(text) is None


def test_literals() -> None:
    """A quote can't end one."""
    assert literal("a'b\\") == "'a''b\\'"


def test_numbers_in_queries_are_the_limits() -> None:
    """The limits that stand in the texts of queries are the named ones."""
    assert f"'pg_authid'), {COMMENT_CHARACTERS_MAX})" in FIND
    assert f"'pg_authid'), {COMMENT_CHARACTERS_MAX})" in ROLES
    assert f"LIMIT {SQL_ROWS_MAX}" in ROLES
