"""No secret anywhere that it does not belong: the canary is searched for in all of it."""

import base64
import re
import subprocess
import urllib.parse
from pathlib import Path

import pytest

from tests.system.conftest import API_NAME, TOKEN, Stage
from tests.system.host import DONE_WITHIN_S, ENDED_WITHIN_S
from tests.system.written import files

CURL = ["curl", "-sS", "-i", "--max-time", "60"]
FORMS = {
    TOKEN.encode(),
    base64.b64encode(TOKEN.encode()).rstrip(b"=")[:-1],
    urllib.parse.quote(TOKEN).encode(),
    TOKEN.encode().hex().encode(),
}
# Run as a loop with leave to look around: everything of its own that a process can read.
LOOK = """
import glob, os, sys
sys.stdout.buffer.write(open("/proc/self/environ", "rb").read())
sys.stdout.buffer.write(open("/proc/self/cmdline", "rb").read())
sys.stdout.buffer.write(open("/proc/self/mountinfo", "rb").read())
import urllib.request
for path in ("/v1/look", "/echo-headers", "/v1/secret/x", "/nothing"):
    try:
        with urllib.request.urlopen(f"https://{sys.argv[1]}{path}", timeout=60) as answer:
            sys.stdout.write(f"{answer.headers}{answer.read()!r}")
    except OSError as error:
        body = error.read() if hasattr(error, "read") else b""
        sys.stdout.write(f"{error} {body!r}")
sys.stdout.flush()
for line in open("/proc/self/maps"):
    start, end = (int(number, 16) for number in line.split()[0].split("-"))
    if "r" in line.split()[1] and "[v" not in line and end - start < 1 << 28:
        try:
            with open("/proc/self/mem", "rb") as memory:
                memory.seek(start)
                sys.stdout.buffer.write(memory.read(end - start))
        except OSError:
            continue
for root in sys.argv[2:]:
    for path, _, files in os.walk(root):
        for name in files:
            try:
                with open(os.path.join(path, name), "rb") as file:
                    sys.stdout.buffer.write(file.read(1 << 20))
            except OSError:
                continue
"""


def found(data: bytes) -> list[bytes]:
    """Return the forms of the canary that are in the bytes."""
    return [form for form in FORMS if form in data]


def test_nothing_that_a_loop_can_read_holds_it(whole: Stage) -> None:
    """Environment, argv, mounts, memory, files, responses and errors of a loop: no canary."""
    roots = [str(whole.host.base), str(whole.site.folder), str(whole.collector.folder), "/dev/shm"]
    done = subprocess.run(
        whole.host.run_command("job", ["/usr/bin/python3", "-c", LOOK, API_NAME, *roots]),
        capture_output=True,
        timeout=DONE_WITHIN_S,
        check=False,
        env=whole.host.loop_environment(),
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    assert b'"path":"/v1/look"' in done.stdout
    assert len(done.stdout) > 1 << 20  # memory was read
    assert not found(done.stdout + done.stderr)


def test_nothing_that_we_keep_or_say_holds_it(whole: Stage) -> None:
    """Logs, spool, journal, collector store and command outputs: no canary."""
    host = whole.host
    host.run("job", [*CURL, f"https://{API_NAME}/v1/kept?token={TOKEN}"])
    host.run("job", [*CURL, "-H", f"Authorization: Bearer {TOKEN}", f"https://{API_NAME}/v1/sent"])
    whole.operations(1, resource="/v1/sent")
    said = [host.cli(*words).stdout for words in (("status",), ("loops",), ("doctor",))]
    said.append(str(whole.collector.ask("sessions", "list")))
    said.append(str(whole.operations(1)))
    assert not found("".join(said).encode())
    kept = files(host.base, whole.collector.folder)
    assert not [path for path, data in kept if found(data)]


def test_the_service_environment_is_the_brokers_alone(whole: Stage) -> None:
    """A static credential in a variable is in no process that parses what others send."""
    variables = {
        role: Path(f"/proc/{whole.host.role_pid(role)}/environ").read_bytes()
        for role in ("broker", "proxy@0", "reporter")
    }
    mark = b"NOTIFY_SOCKET="  # of the service's environment, and of no use to a role
    assert [role for role, found in variables.items() if mark in found] == ["broker"]


@pytest.mark.parametrize("role", ["kernel", "reporter"])
def test_roles_without_need_do_not_hold_it(whole: Stage, role: str) -> None:
    """The root daemon and the reporter never had the credential in memory."""
    whole.host.run("job", [*CURL, f"https://{API_NAME}/v1/roles"])
    assert not found(memory(whole.host.role_pid(role)))


def test_the_broker_had_it(whole: Stage) -> None:
    """The control: the search finds it where it must be while a run lives."""
    sleeper = ["/bin/sh", "-c", f"curl -sS https://{API_NAME}/v1/control; echo; read line"]
    with subprocess.Popen(
        whole.host.run_command("job", sleeper),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=whole.host.loop_environment(),
        cwd="/",
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        held = [role for role in ("broker", "proxy@0") if found(memory(whole.host.role_pid(role)))]
        assert process.stdin is not None
        process.stdin.close()
        process.wait(ENDED_WITHIN_S)
    assert "proxy@0" in held


@pytest.mark.parametrize("role", ["broker", "proxy@0"])
def test_memory_that_holds_it_is_not_dumped(whole: Stage, role: str) -> None:
    """Without core, and closed to other processes of its user; nothing of it is in swap."""
    proc = Path(f"/proc/{whole.host.role_pid(role)}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    assert int(status["VmSwap"].split()[0]) == 0
    core = next(line for line in (proc / "limits").read_text().splitlines() if "core file" in line)
    assert core.split()[-3:-1] == ["0", "0"]
    assert (proc / "mem").stat().st_uid == 0  # not dumpable: ptrace(2), proc(5)


def test_the_brokers_memory_is_locked_or_it_says_so(whole: Stage) -> None:
    """Locking takes a limit that the unit raises (LimitMEMLOCK); without it there is a warning."""
    status = Path(f"/proc/{whole.host.role_pid('broker')}/status").read_text()
    locked = re.search(r"VmLck:\s+[1-9]", status) is not None
    assert locked is not ("memory is not locked" in whole.host.log.read_text())


def memory(pid: int) -> bytes:
    """Return all that can be read of a process's writable memory (as root)."""
    pieces = []
    with Path(f"/proc/{pid}/mem").open("rb") as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            start, end = (int(number, 16) for number in span.split("-"))
            if rights.startswith("rw") and end - start < 1 << 30:
                try:
                    file.seek(start)
                    pieces.append(file.read(end - start))
                except OSError:
                    continue
    return b"".join(pieces)
