"""The drivers' own test suites through a loop that may do everything (`make transparency`: all)."""

import pytest

from tests.system.postgres_site import postgres_site, postgres_stage
from tests.system.postgres_suites import (
    DIFFERENCES,
    WORDS,
    Outcome,
    compare,
    expected,
    prepare,
    shorter,
    start_through,
    unexpected,
)

pytestmark = [pytest.mark.system, pytest.mark.servers]
SUITE_S = 600
TESTS_AT_LEAST = {"asyncpg": 285, "pg8000": 520}


@pytest.mark.slow
@pytest.mark.timeout(2 * SUITE_S + 60)
def test_the_drivers_own_suites() -> None:
    """asyncpg's and pg8000's suites: only what is listed fails, and does.

    One after the other: both drop what is the server's, and listen on a channel of one name.
    """
    found = {}
    with postgres_site() as site, postgres_stage(site) as stage:
        for name in WORDS:
            prepare(site)
            found[name] = start_through(stage, name, shorter(name)).outcomes(SUITE_S)
    for name, least in TESTS_AT_LEAST.items():
        assert len(found[name]) >= least
    assert not [line for name in found for line in unexpected(name, "through", found[name])]


def test_the_list_is_held_against_what_happens() -> None:
    """What fails and is not listed is told, and what is listed and passes."""
    (listed, *_), other = expected("asyncpg", "through"), "tests/test_other.py::test_other"
    passed, failed = Outcome("passed", 0.1, ""), Outcome("failed", 0.1, "why")
    assert not unexpected("asyncpg", "through", {listed: failed, other: passed})
    assert len(unexpected("asyncpg", "through", {listed: passed, other: failed})) == 2
    told = compare("asyncpg", {listed: passed, other: passed}, {listed: failed, other: failed})
    assert f"{other}: passed, failed: NOT LISTED" in "\n".join(told)
    assert listed in "\n".join(told)


def test_each_difference_has_its_reason() -> None:
    """One line of why for each, and each is of a suite that runs."""
    for way in ("direct", "through", "race", "timed"):
        for name in WORDS:
            assert all(len(why) > 40 for why in expected(name, way).values())
    assert "where: through" in DIFFERENCES.read_text(encoding="utf-8")
