"""What holds for every test: no skips, and hypothesis profiles.

`make test` (tests.checks.suite) also compares the machine's namespaces, nftables tables, pins,
cgroups and mounts before the first and after the last test, and fails with what is new.
"""

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Every run of `fast` has the same examples: what is red here is red for everybody, and a change
# of ours made it so. New ones are for HYPOTHESIS_PROFILE=deep, and for `make fuzz`.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", PATIENT, max_examples=100, derandomize=True)
settings.register_profile("deep", PATIENT, max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

# What tests make for other users to read is for them under any umask of who starts us.
os.umask(0o022)

# nohup and a shell's `&` have these ignored, and so would every program that a test starts. One
# that is caught here is ignored no less, and back at its default in a program (execve(2)).
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda _number, _frame: None)


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
