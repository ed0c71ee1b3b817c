"""What instances share of a host: set by the first, put back by the last, however they meet.

In a network namespace of its own each: other tests' instances start and end all the time.
"""

import json
import subprocess

from agent.kernel.config import PlaneConfig
from agent.kernel.routes import ROUTE_PROTOCOL
from tests.kernel.bench import WAIT_S
from tests.kernel.settings_main import SELF, words
from tests.servers.netns import namespace


def _done(what: str, config: PlaneConfig) -> object:
    """Return what a function of settings_main said."""
    with namespace("settings") as inside:
        line = inside.argv(*SELF, what, *words(config))
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=4 * WAIT_S)
    assert done.returncode == 0, done.stderr
    said: object = json.loads(done.stdout.splitlines()[-1])
    return said


def test_the_sysctl_is_put_back_by_the_last(config: PlaneConfig) -> None:
    """It is 1 while any instance is there; what it was before comes back with the last one."""
    assert _done("sysctl", config) == ["0", "1", "0"]


def test_routes_there_before_stay(config: PlaneConfig) -> None:
    """A route that somebody else made is used and not removed."""
    assert "proto 99" in str(_done("theirs", config))


def test_who_starts_while_the_last_one_puts_back_has_all(config: PlaneConfig) -> None:
    """The first of the next ones waits its turn: else it found routes that go the moment after."""
    assert _done("meanwhile", config) == [0, ROUTE_PROTOCOL, ROUTE_PROTOCOL, "1"]
