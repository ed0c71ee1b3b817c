"""What expires is replaced while the daemon lives, and the daemon takes notice."""

import os
import time

import pytest

from tests.system.conftest import Stage

pytestmark = pytest.mark.system
WITHIN_S = 120.0


def test_a_replaced_identity_is_read_by_itself(whole: Stage) -> None:
    """The reporter starts anew, without an alarm; calls before and after reach the collector."""
    call = ["/usr/bin/curl", "-sf", "http://api.test.internal/v1/renewed"]
    before = whole.host.role_pid("reporter")
    assert whole.host.run("job", call).returncode == 0
    folder = whole.host.identity_dir
    paths = [os.path.join(folder, name) for name in ("key.pem", "cert.pem", "ca.pem")]
    for path in paths:
        with open(path, "rb") as old, open(f"{path}.new", "wb") as new:
            new.write(old.read())
    for path in paths:  # at once: a pause between them would be two changes
        os.rename(f"{path}.new", path)
    deadline = time.monotonic() + WITHIN_S
    while whole.host.role_pid("reporter") == before or not _connected(whole):
        assert time.monotonic() < deadline, "no new reporter reports"
        time.sleep(0.05)
    assert whole.host.run("job", call).returncode == 0
    assert len(whole.operations(2)) >= 2
    assert not [each for each in whole.collector.ask("alarms") if "reporter" in each["detail"]]


def _connected(whole: Stage) -> bool:
    """Whether a reporter records, and reports: until it does, calls are refused."""
    status = whole.host.json("status")
    assert isinstance(status, dict)
    return bool(status["reporter"] and status["reporter"]["connected"])
