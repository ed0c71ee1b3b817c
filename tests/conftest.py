"""What holds for every test: no skips, hypothesis profiles, and nothing left on the machine.

`LOOPWARDEN_LEFTOVERS=refuse` (set by `make test`) compares the machine's namespaces, nftables
tables, pins, cgroups and mounts before the first and after the last test, and fails the run with
their names when one is new. It is off by default, so that two suites may run side by side.
"""

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.checks.machine import kernel_objects

settings.register_profile(
    "fast", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("deep", settings.get_profile("fast"), max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

_BEFORE = pytest.StashKey[frozenset[str]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remember what the machine has before the first test (xdist: their head does, once)."""
    if hasattr(session.config, "workerinput"):
        return
    if os.environ.get("LOOPWARDEN_LEFTOVERS") == "refuse":
        session.config.stash[_BEFORE] = kernel_objects()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when something of ours is left on the machine."""
    before = session.config.stash.get(_BEFORE, None)
    if before is None:
        return
    left = sorted(kernel_objects() - before)
    if left:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line("")
            reporter.write_line(f"LEFT BEHIND ({len(left)}):", red=True)
            for name in left:
                reporter.write_line(f"  {name}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure: a test that does not run proves nothing and looks green."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped; no test of this suite may be"
    return report


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return Path(__file__).parents[1]
