"""The systemd units: the hardening table holds, and systemd itself accepts them."""

import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from agent.cli.collector_settings import File
from agent.config.daemon import DEFAULT_PATH, Daemon, Users, load
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


def _keys(kind: type[msgspec.Struct], prefix: str = "") -> dict[str, str]:
    """Return every key of a file and its default, as the README writes them."""
    found: dict[str, str] = {}
    for field in msgspec.structs.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found |= _keys(field.type, f"{field.name}.")
        else:
            found[prefix + field.name] = str(field.default) or '""'
    return found


@pytest.mark.parametrize(("file", "kind"), [("loopwarden.toml", Daemon), ("collector.toml", File)])
def test_every_key_of_the_configuration_is_documented(
    file: str, kind: type[msgspec.Struct]
) -> None:
    """The README's table has all keys with their defaults, and no others."""
    table = _readme().partition(f"| key of `{file}` |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([a-z_.]+)` \| `([^`]+)` \|", table, re.MULTILINE)
    assert dict(rows) == _keys(kind)


@pytest.mark.parametrize("prefix", ["/usr", "/opt/loop"])
def test_files_are_installed_where_they_are_told(prefix: str, tmp_path: Path) -> None:
    """DESTDIR and PREFIX: units name the commands that were installed, commands their Python."""
    subprocess.run(
        ["make", "install-files", f"DESTDIR={tmp_path}", f"PREFIX={prefix}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    inside = tmp_path / prefix.removeprefix("/")
    for unit in (DAEMON, COLLECTOR):
        text = (inside / "lib/systemd/system" / unit).read_text(encoding="utf-8")
        command = re.search(r"^ExecStart=(\S+)", text, re.MULTILINE)
        page = re.search(r"^Documentation=file://(\S+)", text, re.MULTILINE)
        assert command
        assert page
        assert (tmp_path / page[1].removeprefix("/")).is_file()
        assert (tmp_path / command[1].removeprefix("/")).stat().st_mode & 0o111
        script = (tmp_path / command[1].removeprefix("/")).read_text(encoding="utf-8")
        assert f"exec {prefix}/lib/loopwarden/bin/python -I " in script
    assert (inside / "share/doc/loopwarden/agent/policy/README.md").is_file()
    assert load(tmp_path / "etc/loopwarden/loopwarden.toml") == Daemon()


def test_what_was_edited_is_left_alone(tmp_path: Path) -> None:
    """A second installation replaces units, and no configuration."""
    install = ["make", "install-files", f"DESTDIR={tmp_path}"]
    subprocess.run(install, cwd=ROOT, check=True, capture_output=True)
    edited = tmp_path / "etc/loopwarden/loopwarden.toml"
    unit = tmp_path / "usr/lib/systemd/system" / DAEMON
    for path in (edited, unit):
        path.write_text("# mine\n", encoding="utf-8")
    subprocess.run(install, cwd=ROOT, check=True, capture_output=True)
    assert edited.read_text(encoding="utf-8") == "# mine\n"
    assert unit.read_bytes() == (UNITS / DAEMON).read_bytes()


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
