"""Leases through the whole product: listed, revoked by a person, and none without a run."""

import json
import subprocess
import time
from typing import Any

from tests.system.conftest import API_NAME, TOKEN, Stage

CURL = f"curl -sS --max-time 10 -w '\\n%{{http_code}}\\n' https://{API_NAME}/v1/leases"
KILLED_WITHIN_S, TRIES = 2.0, 3  # a machine that is full for a second is tried again
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
        lines = iter(self._running.stdout.readline, "end\n")
        return "".join(lines).strip()

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
            self._running.wait(10)
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
    deadline = time.monotonic() + 10
    while job.leases() and time.monotonic() < deadline:
        time.sleep(0.02)
    [over] = [each for each in job.leases("--all") if each["lease_id"] not in before]
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


def test_the_collector_kills_a_lease_and_a_run_within_two_seconds(whole: Stage) -> None:
    """The lease's target is refused from then on; then the run's processes are gone."""
    took: list[float] = []
    while not took or (min(took) >= KILLED_WITHIN_S and len(took) < TRIES):
        took.append(_kill_lease_and_run(whole))
    assert min(took) < KILLED_WITHIN_S, took


def _kill_lease_and_run(whole: Stage) -> float:
    """Kill a run's lease, then the run; return how long the slower of the two took."""
    job = Job(whole)
    try:
        assert job.call().endswith("\n200")
        [lease] = job.leases()
        lease_s, answer = _kill(whole, lease["lease_id"])
        assert answer["state"] == "confirmed"
        assert "forgotten" in answer["detail"]
        assert job.call().endswith("\n503")
        run_s, answer = _kill(whole, lease["run_id"])
        assert answer["state"] == "confirmed"
    finally:
        job.end()
    _, answer = _kill(whole, lease["run_id"])
    assert answer["state"] == "unknown"
    return max(lease_s, run_s)


def _kill(stage: Stage, name: str) -> tuple[float, dict[str, Any]]:
    """Ask as soon as the collector knows of it; return how long the host's last word took.

    The command's own start is not counted: another that does nothing is timed beside it.
    """
    deadline = time.monotonic() + 15
    while name not in _known(stage) and time.monotonic() < deadline:
        time.sleep(0.1)
    started = time.monotonic()
    stage.collector.command("--help")
    idle_s = time.monotonic() - started
    started = time.monotonic()
    state_dir = str(stage.collector.state_dir)
    done = stage.collector.command("kill", name, "--state-dir", state_dir, "--json")
    took_s = time.monotonic() - started - idle_s
    assert done.stdout, done.stderr
    return took_s, json.loads(done.stdout)


def _known(stage: Stage) -> set[str]:
    runs = stage.collector.ask("runs")
    held = stage.collector.ask("who", "--target", "api")
    return {row["run_id"] for row in runs} | {row.get("lease_id", "") for row in held}
