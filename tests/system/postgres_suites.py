"""The PostgreSQL drivers' own test suites, directly and through a loop that may do everything.

.venv/bin/python -m tests.system.postgres_suites    # `make transparency`: all of it, compared
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.servers import clients
from tests.servers.clients import client_python, suite
from tests.servers.postgres import SUPERUSER_PASSWORD
from tests.system.postgres_site import Site, Stage, postgres_site, postgres_stage

EACH_TEST_S = 120  # a guard against what hangs, on any machine
WHOLE_SUITE_S = 1200
NUMBERS = itertools.count(1)
DIFFERENCES = Path(__file__).with_name("postgres_differences.yaml")
PREPARED = "CREATE EXTENSION IF NOT EXISTS hstore"  # what they need beyond a new server
# All of a suite, but: pg8000's `auth` reconfigures the server's own logins and turns its TLS off,
# its benchmarks want a plugin, its README a server of its own on localhost.
WORDS = {
    "asyncpg": ("tests",),
    "pg8000": (
        "test", "--ignore=test/test_readme.py", "--ignore-glob=test/*/auth",
        "--ignore-glob=test/*/test_benchmarks.py",
    ),
}  # fmt: skip
# What `make test` has time for: no test that takes seconds directly too, and no `legacy`, which is
# `dbapi` once more. Nor what measures time: other tests run meanwhile.
_SLOW = (
    "tests/test_introspection.py::TestIntrospection::test_introspection_on_large_db",
    (
        "tests/test_connect.py::TestConnectionAttributes"
        "::test_prefer_standby_picks_master_when_standby_is_down"
    ),
    "test/native/test_query.py::test_max_parameters",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one test."""

    became: str  # passed, failed, skipped
    took_s: float
    told: str  # why, when it is known


Outcomes = Mapping[str, Outcome]


@dataclass(slots=True)
class Running:
    """A suite that was started."""

    process: "subprocess.Popen[bytes]"
    folder: Path

    def outcomes(self, timeout_s: float) -> Outcomes:
        """Wait for its end, and return what became of each test.

        Raises:
            RuntimeError: it ended without saying.
            subprocess.TimeoutExpired: it does not end; it is killed.
        """
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        told = self.folder / "outcomes"
        if not told.exists():
            raise RuntimeError((self.folder / "output").read_text(errors="replace")[-3000:])
        lines = [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()]
        return {name: Outcome(*rest) for name, *rest in lines}


def expected(name: str, way: str) -> Mapping[str, str]:
    """Return the tests of a suite that are listed so (direct, through, race, timed), and why."""
    entries = yaml.safe_load(DIFFERENCES.read_text(encoding="utf-8"))
    both = way in {"direct", "through"}
    return {
        test: entry["why"]
        for entry in entries
        if entry["where"] == way or (both and entry["where"] == "both")
        for test in entry["tests"].get(name, ())
    }


def unexpected(name: str, way: str, found: Outcomes) -> list[str]:
    """Return a line for each test that is not as the list says."""
    listed = expected(name, way)
    races = expected(name, "race")
    return [
        f"{name} {way}: {test} {outcome.became}"
        f"{', though it is listed to fail' if test in listed else ''}: {outcome.told}"
        for test, outcome in found.items()
        if (outcome.became == "failed") != (test in listed) and test not in races
    ]


def shorter(name: str) -> tuple[str, ...]:
    """Return what has a suite run without the tests that are slow or measure time."""
    left_out = {*_SLOW, *expected(name, "timed")}
    legacy = ("--ignore=test/legacy",) if name == "pg8000" else ()
    return (*WORDS[name], *legacy, *(f"--deselect={test}" for test in sorted(left_out)))


def prepare(site: Site) -> None:
    """Make in the server what the suites need."""
    site.server.ask(PREPARED, database="postgres")


def start_through(stage: Stage, name: str, words: tuple[str, ...]) -> Running:
    """Start a suite as a loop that gives no password."""
    folder, command = _command(stage.site.folder, name, words, {
        "PGHOST": "all.test.internal", "PGPORT": "5432",
    })  # fmt: skip
    return _start(
        folder, stage.host.run_command("everything", command), stage.host.loop_environment()
    )


def start_direct(site: Site, name: str, words: tuple[str, ...]) -> Running:
    """Start a suite as the same user, who knows the password."""
    folder, command = _command(site.folder, name, words, {
        "PGHOST": site.far.address4, "PGPORT": str(site.server.port),
        "PGPASSWORD": SUPERUSER_PASSWORD,
    })  # fmt: skip
    drop = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
    return _start(folder, [*drop, *command], {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"})


def _command(
    base: Path, name: str, words: tuple[str, ...], environment: Mapping[str, str]
) -> tuple[Path, list[str]]:
    folder = base / f"suite-{next(NUMBERS)}"
    folder.mkdir()
    folder.chmod(0o777)  # the loop's user writes there
    plugin = shutil.copy(Path(clients.__file__).with_name("outcomes.py"), folder)
    Path(plugin).chmod(0o644)
    settings = {
        **environment, "PGUSER": "postgres", "PGDATABASE": "postgres",
        "OUTCOMES": str(folder / "outcomes"), "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    return folder, [
        "env", "-C", str(suite(name)), *(f"{key}={value}" for key, value in settings.items()),
        str(client_python()), "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider",
        "-p", "outcomes", f"--timeout={EACH_TEST_S}", *words,
    ]  # fmt: skip


def _start(folder: Path, command: list[str], environment: Mapping[str, str]) -> Running:
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env=environment, cwd="/",
        )  # fmt: skip
    return Running(process, folder)


def compare(name: str, direct: Outcomes, through: Outcomes) -> list[str]:
    """Return a suite's numbers both ways, and a line for each test that is not the same."""
    lines = [f"{name:10} {'':8} passed failed skipped seconds"]
    for way, found in (("direct", direct), ("through", through)):
        counts = Counter(outcome.became for outcome in found.values())
        took_s = sum(outcome.took_s for outcome in found.values())
        lines.append(
            f"{'':10} {way:8} {counts['passed']:6} {counts['failed']:6} {counts['skipped']:7}"
            f" {took_s:7.1f}"
        )
    why = {**expected(name, "direct"), **expected(name, "through"), **expected(name, "race")}
    for test in sorted(direct.keys() | through.keys()):
        both = [found[test].became if test in found else "absent" for found in (direct, through)]
        if both[0] != both[1] or "failed" in both:
            lines.append(f"  {test}: {both[0]}, {both[1]}: {why.get(test, 'NOT LISTED')}")
    return lines


def main() -> int:
    """Run all of each suite both ways, one after the other; return whether the list is true."""
    wrong: list[str] = []
    with postgres_site() as site, postgres_stage(site) as stage:
        for name, words in WORDS.items():
            prepare(site)
            direct = start_direct(site, name, words).outcomes(WHOLE_SUITE_S)
            prepare(site)
            through = start_through(stage, name, words).outcomes(WHOLE_SUITE_S)
            print("\n".join(compare(name, direct, through)), flush=True)
            wrong += unexpected(name, "direct", direct) + unexpected(name, "through", through)
    print("\n".join(wrong) or "every difference is listed, and every listed one is there")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
