"""What systemd is told: readiness and the watchdog, by sd_notify(3)."""

import os
import socket
from pathlib import Path

import pytest

from agent.runtime.notify import notify, watchdog_interval_s


@pytest.mark.parametrize("abstract", [False, True])
def test_fields_arrive_in_one_datagram(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, abstract: bool
) -> None:
    """By a path, and by a name that begins with @."""
    name = f"@lw-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify(READY="1", STATUS="serving")
        assert manager.recv(4096) == b"READY=1\nSTATUS=serving"


@pytest.mark.parametrize("name", ["", "/nonexistent/notify"])
def test_where_nobody_listens_nothing_happens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """None, and one that is gone."""
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    notify(READY="1")


@pytest.mark.parametrize(
    ("limit", "pid", "interval_s"),
    [
        ("30000000", "", 15.0),
        ("30000000", str(os.getpid()), 15.0),
        ("30000000", "1", None),
        ("0", "", None),
        ("x", "", None),
        ("", "", None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_bites(
    limit: str, pid: str, interval_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of WATCHDOG_USEC, if it is meant for this process."""
    for name, value in (("WATCHDOG_USEC", limit), ("WATCHDOG_PID", pid)):
        if value:
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.delenv(name, raising=False)
    assert watchdog_interval_s() == interval_s
