"""A worker host as shipped, a far side with a sniffer, and a run of each kind that tries things."""

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel.farside import FAR4, FAR6, NEAR4, FarSide
from tests.system.host import Host, running

INSIDE = Path(__file__).with_name("inside.py")
PYTHON = "/usr/bin/python3"  # every user can reach it, unlike a checkout's
NUMBERS = itertools.count()
# The only target is elsewhere: whatever a run dials here is unlisted.
POLICY = """
targets:
  elsewhere: {protocol: http, address: "https://elsewhere.test.internal", dial: "192.0.2.1:443"}
loops:
  job:
    who: [{user: nobody}]
    rules: [{target: elsewhere, allow: {method: GET, path: /**}}]
"""


@dataclass(frozen=True, slots=True)
class Loop:
    """A live run whose command does what it is told."""

    process: subprocess.Popen[str]
    user: str

    def try_(self, code: str, *, port: int = 0, proxy_port: int = 0) -> str:
        """Have a child of the run do this; return what it printed."""
        facts = f"F4, F6, N4 = {FAR4!r}, {FAR6!r}, {NEAR4!r}\nPORT, PROXY = {port}, {proxy_port}\n"
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(facts + code) + "\n")
        self.process.stdin.flush()
        said: str = json.loads(self.process.stdout.readline())
        return said


@contextmanager
def loop(host: Host, user: str) -> Iterator[Loop]:
    """Start a run by `loopwarden run --user USER`; it has ended afterwards."""
    script = INSIDE.read_text()
    with subprocess.Popen(
        host.run_command("job", [PYTHON, "-I", "-S", "-c", script], user=user),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=host.loop_environment(),
        cwd="/",
    ) as process:
        try:
            yield Loop(process, user)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(120)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """The daemon with all its roles."""
    number = next(NUMBERS)
    with running(f"lwesc{os.getpid()}x{number}", POLICY) as made:
        yield made


@pytest.fixture(scope="package")  # one at a time: its addresses are the process's own
def far() -> Iterator[FarSide]:
    """A host behind a veth pair, with servers and a sniffer."""
    made = FarSide.create()
    yield made
    made.close()


@pytest.fixture(scope="module", params=["nobody", "root"])
def inside(request: pytest.FixtureRequest, host: Host) -> Iterator[Loop]:
    """A run of a user, and one of root, whose powers the launcher takes away."""
    with loop(host, request.param) as made:
        yield made
