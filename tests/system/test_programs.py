"""Provider exec through the whole product: a confined broker, real programs, a crash between."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.programs import Folder, folder
from tests.system.conftest import TOKEN, Site, Stage, stage
from tests.system.test_leases import WITHIN_S, Job

MAKE = """cd {scratch} && id -u > uid && echo x > made.$LOOPWARDEN_LEASE
printf '{{"token": "%s", "expires_in": 3600, "handle": "h"}}' {token}"""
END = "cd {scratch} && rm -f made.$LOOPWARDEN_LEASE && echo $LOOPWARDEN_HANDLE >> ended"


@dataclass(frozen=True)
class WithPrograms(Site):
    """The API, with a credential that a program makes."""

    place: Folder | None = None

    def policy(self, durability: str = "process") -> str:
        """Return the policy with another credential."""
        assert self.place is not None
        scratch = self.place.scratch
        make = self.place.program("make", MAKE.format(scratch=scratch, token=TOKEN))
        end = self.place.program("end", END.format(scratch=scratch))
        static = f"provider: static, file: {self.folder / 'token'}"
        ours = f"provider: exec, command: {make}, revoke_command: {end}"
        text = super().policy(durability)
        assert static in text
        return text.replace(static, ours)

    def made(self) -> list[Path]:
        """Return the credentials that are alive."""
        assert self.place is not None
        return list(self.place.scratch.glob("made.*"))


@pytest.fixture(name="programs")
def _programs(api_site: Site) -> Iterator[tuple[Stage, WithPrograms]]:
    with folder() as place, tempfile.TemporaryDirectory(prefix="lwt-exec-") as name:
        site = WithPrograms(api_site.far, api_site.api, api_site.folder, place)
        Path(name).chmod(0o755)  # the reporter passes through
        with stage(site, Path(name)) as running:
            yield running, site


def test_a_credential_lives_with_its_run(programs: tuple[Stage, WithPrograms]) -> None:
    """Made once when it is needed, by a user without power; ended when the run is over."""
    running, site = programs
    job = Job(running)
    try:
        assert not site.made()
        assert job.call().endswith("\n200")
        assert job.call().endswith("\n200")
        assert len(site.made()) == 1
        [lease] = job.leases()
        assert (lease["state"], lease["revocable"]) == ("active", True)
    finally:
        job.end()
    job.ended()  # and so is the program that ended it
    assert not site.made()
    assert site.place is not None
    assert (site.place.scratch / "uid").read_text() == "64204\n"
    assert (site.place.scratch / "ended").read_text() == "h\n"


def test_a_killed_broker_forgets_nothing(programs: tuple[Stage, WithPrograms]) -> None:
    """The next one has a keeper of its own, ends what was made, and makes another."""
    running, site = programs
    job = Job(running)
    try:
        assert job.call().endswith("\n200")
        [before] = site.made()
        running.host.kill_role("broker")
        deadline = time.monotonic() + WITHIN_S
        while before.exists():
            assert time.monotonic() < deadline, "what was made is left"
            time.sleep(0.05)  # the programs are other processes: their files are all that tells
        assert job.call().endswith("\n200")
        assert len(site.made()) == 1
    finally:
        job.end()
    job.ended()
    assert not site.made()
