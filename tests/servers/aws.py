"""AWS on a far host: see aws_main.py."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.certificates import Authority
from tests.servers.clients import aws_python
from tests.servers.netns import FarHost
from tests.servers.nginx import wait_listening

ROOT = Path(__file__).parents[2]
PORT = 443
READY_ATTEMPTS = 6
REGION = "eu-west-1"
KEY_ID, SECRET = "AKIAEXAMPLE000000000", "0perat0rS3cr3t/+Key" + "x" * 21
SERVICES = ("s3", "dynamodb", "sqs", "sns", "sts", "secretsmanager")
BUCKET = f"reports.s3.{REGION}.amazonaws.com"
NAMES = (*(f"{service}.{REGION}.amazonaws.com" for service in SERVICES), BUCKET)


@dataclass(frozen=True, slots=True)
class Aws:
    """A running server. Its log is the oracle."""

    ca: Path
    log: Path

    def requests(self) -> list[dict[str, Any]]:
        """Return what it was asked."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def made(self) -> list[dict[str, str]]:
        """Return the keys that STS made."""
        return [each["made"] for each in self.requests() if "made" in each]


@contextlib.contextmanager
def aws_server(far: FarHost, folder: Path) -> Iterator[Aws]:
    """Run it on a far host until the test is done. Its folder is its own."""
    authority = Authority()
    ca, own = folder / "aws-ca.pem", folder / "aws"
    ca.write_text(authority.pem, encoding="ascii")
    own.mkdir(mode=0o700)
    identity = authority.identity(far.address4, also=NAMES)
    (own / "chain.pem").write_bytes(identity.chain_pem)
    (own / "key.pem").write_bytes(identity.key_pem)
    (own / "secret").write_text(SECRET, encoding="ascii")
    (own / "log").touch()
    files = [str(own / name) for name in ("chain.pem", "key.pem", "log")]
    words = [far.address4, str(PORT), *files, KEY_ID, str(own / "secret")]
    argv = far.inside.argv(str(aws_python()), "-m", "tests.servers.aws_main", *words)
    process = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        for attempt in range(READY_ATTEMPTS, 0, -1):  # moto takes seconds to be imported
            try:
                far.inside.call(lambda: wait_listening(far.address4, PORT, process))
                break
            except RuntimeError:
                if process.poll() is not None or attempt == 1:
                    raise
        yield Aws(ca, own / "log")
    finally:
        process.kill()
        process.communicate(timeout=10)
