"""What expires is replaced while the daemon lives, and the daemon takes notice."""

import os
import time

import pytest

from tests.system.conftest import Stage

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]
WITHIN_S = 30.0


def test_a_replaced_identity_is_read_by_itself(whole: Stage) -> None:
    """The reporter starts anew, without an alarm; calls before and after reach the collector."""
    call = ["/usr/bin/curl", "-sf", "http://api.test.internal/v1/renewed"]
    before = whole.host.role_pid("reporter")
    assert whole.host.run("job", call).returncode == 0
    folder = whole.host.identity_dir
    for name in ("key.pem", "cert.pem", "ca.pem"):
        path = os.path.join(folder, name)
        with open(path, "rb") as old, open(f"{path}.new", "wb") as new:
            new.write(old.read())
        os.rename(f"{path}.new", path)
    deadline = time.monotonic() + WITHIN_S
    while whole.host.role_pid("reporter") == before:
        assert time.monotonic() < deadline, "the reporter is the old one"
        time.sleep(0.05)
    assert whole.host.run("job", call).returncode == 0
    assert len(whole.operations(2)) >= 2
    assert not [each for each in whole.collector.ask("alarms") if "reporter" in each["detail"]]
