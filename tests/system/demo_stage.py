"""What the facts of the demonstration are shown on."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from tests.servers.nginx import Api
from tests.servers.openbao_setup import Vault
from tests.servers.postgres import Postgres
from tests.system.demo_parts import Collector
from tests.system.demo_screen import Screen
from tests.system.host import Host

LOOP = "nightly-report"
BROKER_UID = 64201  # of the test host's configuration


@dataclass(frozen=True, slots=True)
class Answer:
    """How a run ended, and what it said."""

    code: int
    stdout: str
    stderr: str
    took_s: float


@dataclass(frozen=True, slots=True)
class Stage:
    """What the facts need."""

    screen: Screen
    host: Host
    api: Api
    database: Postgres
    vault: Vault
    collector: Collector
    ca_file: Path
    timed: bool  # whether a duration is a fact


def run(stage: Stage, command: list[str], shown: list[str] | None = None) -> Answer:
    """Run a command as a run of the loop, as the user nobody, and show both."""
    stage.screen.command(["loopwarden", "run", "--loop", LOOP, "--", *(shown or command)])
    began = time.monotonic()
    done = stage.host.run(LOOP, command)
    answer = Answer(done.returncode, done.stdout, done.stderr, time.monotonic() - began)
    stage.screen.output(
        "\n".join(part.strip() for part in (answer.stdout, answer.stderr) if part), 12
    )
    return answer


def write_secret(path: Path, secret: str) -> None:
    """Write a secret as providers want it: the broker's own, and nobody else's to read."""
    path.touch(0o600)
    path.write_text(secret + "\n")
    os.chown(path, BROKER_UID, BROKER_UID)
