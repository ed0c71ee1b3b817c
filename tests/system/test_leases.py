"""Leases through the whole product: listed, revoked by a person, and none without a run."""

import json
import subprocess
import time
from typing import Any

from agent.cli import collector_kill
from agent.collector import dispatch
from tests.system.conftest import API_NAME, TOKEN, Stage

CURL = f"curl -sS --max-time 60 -w '\\n%{{http_code}}\\n' https://{API_NAME}/v1/leases"
WITHIN_S = 120.0  # of what hangs otherwise
REACHED_S = 2.0  # a kill is at its host: what is waited for on its way, and as much for the work
LOOP = f"while read -r _; do {CURL}; echo end; done"


class Job:
    """A run that calls the API when it is told to."""

    def __init__(self, stage: Stage) -> None:
        self.host = stage.host
        self._running = subprocess.Popen(
            stage.host.run_command("job", ["/bin/sh", "-c", LOOP]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=stage.host.loop_environment(),
            cwd="/",
        )

    def call(self) -> str:
        """Return the API's answer, and the status behind it."""
        assert self._running.stdin is not None
        assert self._running.stdout is not None
        self._running.stdin.write("\n")
        self._running.stdin.flush()
        said = ""
        while (line := self._running.stdout.readline()) != "end\n":
            assert line, f"the run ended: {said}"
            said += line
        return said.strip()

    def ended(self) -> list[dict[str, Any]]:
        """Return what is over, once nothing is open any more."""
        deadline = time.monotonic() + WITHIN_S
        while self.leases():
            assert time.monotonic() < deadline, "a lease is left"
            time.sleep(0.02)
        return self.leases("--all")

    def leases(self, *words: str) -> list[dict[str, Any]]:
        """Return what `loopwarden leases` says."""
        found = self.host.json("leases", *words)
        assert isinstance(found, list)
        return found

    def end(self) -> None:
        """Let it end by itself, or with force."""
        assert self._running.stdin is not None
        self._running.stdin.close()
        try:
            self._running.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            self._running.kill()
            raise
        finally:
            assert self._running.stdout is not None
            self._running.stdout.close()


def test_a_lease_lives_from_the_first_need_to_the_end_of_its_run(whole: Stage) -> None:
    """Nothing before the first call, one lease for many, over when the run is."""
    job = Job(whole)
    try:
        before = {each["lease_id"] for each in job.leases("--all")}
        assert job.leases() == []
        for _ in range(3):
            assert job.call().endswith("\n200")
        [lease] = job.leases()
        assert (lease["target"], lease["state"], lease["revocable"]) == ("api", "active", False)
        assert lease["next_action"] == "forget when the run ends"
    finally:
        job.end()
    [over] = [each for each in job.ended() if each["lease_id"] not in before]
    assert over["lease_id"] == lease["lease_id"]
    assert over["state"] == "forgotten"  # a static token lives on at its API: not "revoked"
    assert TOKEN not in json.dumps(over)


def test_a_person_takes_a_lease_away(whole: Stage) -> None:
    """--rotate: the next call has another. Without: 503 that names the lease, not a denial."""
    job = Job(whole)
    try:
        assert job.call().endswith("\n200")
        [first] = job.leases()
        done = whole.host.cli("revoke", first["lease_id"], "--rotate")
        assert done.returncode == 0, done.stdout + done.stderr
        assert job.call().endswith("\n200")
        [second] = job.leases()
        assert second["lease_id"] != first["lease_id"]
        done = whole.host.cli("revoke", second["lease_id"])
        assert done.returncode == 0, done.stdout + done.stderr
        assert "forgotten" in done.stdout
        answer, _, status = job.call().rpartition("\n")
        assert status == "503"
        refusal = json.loads(answer)
        assert refusal["reason"] == "lease-refused"
        assert second["lease_id"] in refusal["explanation"]
        assert job.leases() == []
    finally:
        job.end()


def test_the_collector_kills_a_lease_and_a_run(whole: Stage) -> None:
    """The lease's target is refused from then on; then the run's processes are gone.

    How soon is not measured here, on a machine with much else to do: it is what we wait for.
    """
    assert 2 * (dispatch.LOOK_INTERVAL_S + collector_kill.LOOK_INTERVAL_S) < REACHED_S
    job = Job(whole)
    try:
        assert job.call().endswith("\n200")
        [lease] = job.leases()
        answer = _kill(whole, lease["lease_id"])
        assert answer["state"] == "confirmed"
        assert "forgotten" in answer["detail"]
        assert job.call().endswith("\n503")
        assert _kill(whole, lease["run_id"])["state"] == "confirmed"
    finally:
        job.end()
    deadline = time.monotonic() + WITHIN_S
    while lease["run_id"] in json.dumps(whole.host.json("loops")):
        assert time.monotonic() < deadline, "the run is not over"
        time.sleep(0.02)
    assert _kill(whole, lease["run_id"])["state"] == "unknown"


def _kill(stage: Stage, name: str) -> dict[str, Any]:
    """Ask as soon as the collector knows of it; return the host's last word."""
    deadline = time.monotonic() + WITHIN_S
    while name not in _known(stage):
        assert time.monotonic() < deadline, "the collector does not know of it"
        time.sleep(0.1)
    state_dir = str(stage.collector.state_dir)
    done = stage.collector.command("kill", name, "--state-dir", state_dir, "--json")
    assert done.stdout, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def _known(stage: Stage) -> set[str]:
    runs = stage.collector.ask("runs")
    held = stage.collector.ask("who", "--target", "api")
    return {row["run_id"] for row in runs} | {row.get("lease_id", "") for row in held}
