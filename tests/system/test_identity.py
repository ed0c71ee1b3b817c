"""Who is a loop's process, and who is not: two kernel facts, tried from both sides."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from agent.kernel.cgroups import CgroupTree
from agent.policy.synthetic import assign
from tests.system.conftest import API_NAME, TOKEN, Stage

SYNTHETIC4, _ = assign([API_NAME])[API_NAME]
WITHIN_S = 120.0  # past this it hangs
CALL = f"curl -sS -i --max-time 60 --resolve {API_NAME}:80:{SYNTHETIC4} http://{API_NAME}"


@contextmanager
def waiting_shell(whole: Stage, loop: str = "job") -> Iterator[subprocess.Popen[str]]:
    """A run whose shell does what it is told, line by line; `done` ends each answer."""
    with subprocess.Popen(
        whole.host.run_command(loop, ["/bin/sh"]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=whole.host.loop_environment(),
        cwd="/",
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        process.wait(WITHIN_S)


def tell(process: subprocess.Popen[str], command: str) -> str:
    """Have the shell run a command and return what it printed."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{command} 2>&1; echo; echo done\n")
    process.stdin.flush()
    lines = []
    for line in process.stdout:
        if line == "done\n":
            break
        lines.append(line)
    return "".join(lines)


def run_cgroup(whole: Stage) -> Path:
    """Return the cgroup of the one live run, once those of earlier ones are gone."""
    slice_ = whole.host.cgroup / f"{whole.host.instance}.slice"
    until(lambda: len(_folders(slice_)) == 1, "one run")
    (only,) = _folders(slice_)
    return only


def _folders(folder: Path) -> list[Path]:
    return [each for each in folder.iterdir() if each.is_dir()]


def until(holds: Callable[[], object], what: str) -> None:
    """Wait for what other processes make true."""
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_process_moved_in_by_root_gets_no_credential(whole: Stage) -> None:
    """In the cgroup without the tag: no token is injected, and there is an alarm."""
    with waiting_shell(whole) as shell:
        assert "200 OK" in tell(shell, f"{CALL}/v1/member")
        drop = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
        joiner = subprocess.Popen(
            [*drop, "/bin/sh", "-c", f"read line; {CALL}/v1/moved-in"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        (run_cgroup(whole) / "cgroup.procs").write_text(str(joiner.pid))
        out, _ = joiner.communicate("go\n", timeout=WITHIN_S)
    assert "200 OK" not in out
    lines = [line for line in whole.site.api.requests() if "moved-in" in line]
    assert not any(TOKEN in line for line in lines)
    assert alarmed(whole, "cgroup-without-tag")


def test_a_process_moved_out_is_still_governed(whole: Stage) -> None:
    """Moved to another cgroup: no way to the far host, no credential, and there is an alarm."""
    far = whole.site.far.address4
    with waiting_shell(whole) as shell:
        pid = int(tell(shell, "echo $$").strip())
        (whole.host.cgroup / "bystander" / "cgroup.procs").write_text(str(pid))
        direct = tell(shell, f"curl -sS -i --max-time 5 http://{far}/v1/moved-out-direct")
        named = tell(shell, f"{CALL}/v1/moved-out")
    assert "401" not in direct  # the API itself would answer 401
    assert "200 OK" not in direct
    assert "200 OK" not in named
    assert not [line for line in whole.site.api.requests() if "moved-out" in line]
    assert alarmed(whole, "tag-without-cgroup")


def test_a_registered_cgroup_is_a_run(whole: Stage) -> None:
    """register makes an existing cgroup a run of tier T0; unregister gives it back."""
    cgroup = whole.host.cgroup / "unit"
    cgroup.mkdir(exist_ok=True)
    script = f"echo $$ > {cgroup}/cgroup.procs; echo up; read a; {CALL}/v1/registered; read b"
    with subprocess.Popen(
        ["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as member:
        assert member.stdin is not None
        assert member.stdout is not None
        assert member.stdout.readline() == "up\n"
        done = whole.host.cli("register", "--loop", "job", "--cgroup", str(cgroup))
        assert done.returncode == 0, done.stderr
        member.stdin.write("go\n")
        member.stdin.flush()
        assert "200" in member.stdout.readline()
        runs = json.dumps(whole.host.json("loops"))
        assert '"T0"' in runs
        done = whole.host.cli("unregister", str(cgroup))
        assert done.returncode == 0, done.stderr
        member.stdin.close()
        member.wait(WITHIN_S)
    CgroupTree.find().remove(f"/{whole.host.instance}/unit")


def test_the_doctor_finds_every_layer(whole: Stage) -> None:
    """doctor probes with real packets: every layer that is claimed is present, exit 0."""
    done = whole.host.cli("doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    layers = json.loads(done.stdout)["layers"]
    assert len(layers) > 10
    assert all(layer["present"] for layer in layers if layer["claimed"])


def test_a_revoked_run_is_ended_at_once(whole: Stage) -> None:
    """revoke: the run's processes are gone, and so are run and lease."""
    command = whole.host.run_command("job", ["/bin/sh", "-c", f"{CALL}/v1/revoke; echo; sleep 600"])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env=whole.host.loop_environment(), cwd="/"
    ) as process:
        assert process.stdout is not None
        assert b"200 OK" in process.stdout.readline()
        until(lambda: len(loops(whole)) == 1, "one run")  # earlier ones are over
        (run,) = loops(whole)
        assert whole.host.cli("revoke", run["run"]["run_id"]).returncode == 0
        assert process.wait(WITHIN_S) == -signal.SIGKILL
    until(lambda: not loops(whole), "no run")


def loops(whole: Stage) -> list[dict[str, Any]]:
    """Return the live runs."""
    return cast("list[dict[str, Any]]", whole.host.json("loops"))


def alarmed(whole: Stage, alarm: str) -> bool:
    """Whether the collector has that alarm, after it had its time."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        if any(row["alarm"] == alarm for row in whole.collector.ask("alarms")):
            return True
        time.sleep(0.1)
    return False


def test_the_tests_run_as_root() -> None:
    """Moving processes between cgroups takes root: without it nothing above was tested."""
    assert os.geteuid() == 0
