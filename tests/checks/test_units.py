"""The systemd units: the hardening table holds, and systemd itself accepts them."""

import re
import subprocess
from pathlib import Path

import pytest

from agent.config.daemon import DEFAULT_PATH, Users, load
from tests.checks.tree import ROOT

UNITS = ROOT / "systemd"
DAEMON, COLLECTOR = "loopwarden.service", "loopwarden-collector.service"

# setting → (daemon, collector); "" means that the setting is not there
HARDENING = {
    "NoNewPrivileges": ("yes", "yes"),
    "ProtectSystem": ("strict", "strict"),
    "ReadWritePaths": ("/sys/fs/bpf /sys/fs/cgroup /run/loopwarden", ""),
    "ProtectHome": ("read-only", "yes"),
    "ProtectProc": ("", "invisible"),
    "ProtectControlGroups": ("", "yes"),
    "ProtectKernelTunables": ("", "yes"),
    "ProtectKernelModules": ("yes", "yes"),
    "ProtectKernelLogs": ("yes", "yes"),
    "ProtectClock": ("yes", "yes"),
    "ProtectHostname": ("yes", "yes"),
    "PrivateTmp": ("yes", "yes"),
    "PrivateDevices": ("yes", "yes"),
    "PrivateUsers": ("", "yes"),
    "RestrictNamespaces": ("yes", "yes"),
    "RestrictRealtime": ("yes", "yes"),
    "RestrictSUIDSGID": ("yes", "yes"),
    "RestrictAddressFamilies": (
        "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "AF_UNIX AF_INET AF_INET6",
    ),
    "LockPersonality": ("yes", "yes"),
    "MemoryDenyWriteExecute": ("yes", "yes"),
    "SystemCallArchitectures": ("native", "native"),
    "SystemCallFilter": (
        "@system-service bpf perf_event_open",
        "@system-service ~@privileged @resources",
    ),
    "LimitCORE": ("0", "0"),
}
CAPABILITIES = frozenset(
    {
        "BPF", "PERFMON", "NET_ADMIN", "SYS_PTRACE", "SETUID", "SETGID", "SETPCAP", "KILL", "CHOWN",
        "FOWNER", "DAC_OVERRIDE",
    }
)  # fmt: skip


def settings(unit: str) -> dict[str, str]:
    """Return the settings of [Service]; a repeated one is joined by a space, as lists add up."""
    found: dict[str, str] = {}
    section = ""
    for line in (UNITS / unit).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key] = f"{found[key]} {value}" if key in found else value
    return found


@pytest.mark.parametrize("setting", HARDENING)
def test_hardening_is_as_the_table_says(setting: str) -> None:
    """Each setting of each unit has the value that the table and the README give it."""
    for unit, wanted in zip((DAEMON, COLLECTOR), HARDENING[setting], strict=True):
        assert settings(unit).get(setting, "") == wanted, unit
    row = next(line for line in _readme().splitlines() if line.startswith(f"| `{setting}` |"))
    cells = [cell.strip() for cell in row.split("|")[2:4]]
    for cell, wanted_value in zip(cells, HARDENING[setting], strict=True):
        assert cell == wanted_value or (not wanted_value and cell in {"no", "default", "none"})


def test_capabilities_are_bounded_and_explained() -> None:
    """The daemon has 11 capabilities, each named with its reason; the collector has none."""
    bounded = settings(DAEMON)["CapabilityBoundingSet"].replace("CAP_", "").split()
    assert frozenset(bounded) == CAPABILITIES
    text = (UNITS / DAEMON).read_text(encoding="utf-8")
    reasons = " ".join(line for line in text.splitlines() if line.startswith("#   "))
    assert set(reasons.split()) >= CAPABILITIES
    assert settings(COLLECTOR)["CapabilityBoundingSet"] == ""


def test_the_daemon_is_supervised() -> None:
    """Readiness, watchdog, reload and restart are systemd's; the drain fits its patience."""
    unit = settings(DAEMON)
    assert unit["ExecStart"] == f"/usr/bin/loopwardend --config {DEFAULT_PATH}"
    assert (unit["Type"], unit["WatchdogSec"], unit["KillMode"]) == ("notify", "30s", "mixed")
    assert unit["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert unit["Restart"] == "on-failure"
    assert "Delegate" not in unit
    assert "User" not in unit
    drain_s = load(UNITS / "etc/loopwarden.toml").drain_s
    assert drain_s * 2 < float(unit["TimeoutStopSec"].removesuffix("s"))


def test_users_are_those_of_the_defaults() -> None:
    """sysusers.d makes exactly the users that the configuration and the units name."""
    lines = (UNITS / "sysusers.d/loopwarden.conf").read_text(encoding="utf-8").splitlines()
    made = {line.split()[1] for line in lines if line.startswith("u ")}
    users = Users()
    ours = {users.broker, users.proxy, users.reporter, users.exec}
    assert made == ours | {settings(COLLECTOR)["User"]}


@pytest.mark.parametrize("unit", [DAEMON, COLLECTOR, "loopwarden.slice"])
def test_systemd_accepts_the_unit(unit: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say of it."""
    for name in (DAEMON, COLLECTOR, "loopwarden.slice"):
        text = (UNITS / name).read_text(encoding="utf-8")
        # the commands are not installed here: a program that is stands in for them
        (tmp_path / name).write_text(re.sub(r"/usr/bin/loopwarden\S+", "/bin/true", text))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if unit in line]
    assert not said


@pytest.mark.parametrize("unit", [DAEMON, COLLECTOR])
def test_exposure_is_bounded(unit: str) -> None:
    """`systemd-analyze security` finds the exposure that this table gives, and no more."""
    limit = {DAEMON: 4.5, COLLECTOR: 1.5}[unit]
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    exposure = done.stdout.rpartition("Overall exposure level for ")[2].split()[1]
    assert float(exposure) <= limit


def _readme() -> str:
    return (UNITS / "README.md").read_text(encoding="utf-8")
