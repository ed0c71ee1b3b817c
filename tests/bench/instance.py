"""The whole daemon as a contender: kernel, broker, proxies and reporter; the load is a loop."""

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from agent.model.grant import Durability
from tests.bench.contenders import CORE, NAME, TOKEN, Contender
from tests.bench.measure import family
from tests.servers.certificates import Authority
from tests.servers.nginx import Api
from tests.system.host import running

BROKER_UID = 64201  # tests/system/host.py
NUMBERS = itertools.count()
POLICY = """
targets:
  api:
    protocol: http
    address: https://{name}
    ca: {folder}/ca.pem
    dial: "127.0.0.1:{port}"
    durability: {durability}
    credential: {{provider: static, file: {folder}/token, shape: bearer}}
loops:
  job:
    who: [{{user: nobody}}]
    rules:
      - {{target: api, allow: {{method: GET, path: /files/**}}}}
      - {{target: api, deny: {{path: /admin/**}}}}
"""


@contextlib.contextmanager
def instance(
    folder: Path, authority: Authority, api: Api, durability: Durability
) -> Iterator[Contender]:
    """Run the daemon on the contender's core; the load is started by `loopwarden run`."""
    folder.joinpath("ca.pem").write_text(authority.pem, encoding="ascii")
    token = folder / "token"
    token.write_text(TOKEN, encoding="ascii")
    token.chmod(0o600)
    os.chown(token, BROKER_UID, BROKER_UID)
    policy = POLICY.format(name=NAME, folder=folder, port=api.tls_port, durability=durability)
    number = next(NUMBERS)
    with running(
        f"lwbench{os.getpid() % 10_000}x{number}",
        policy,
        proxy_port=26_900 + 2 * number,
        mark_prefix=0x5C0 + number,
    ) as host:
        assert host.daemon is not None
        for pid in family([host.daemon.pid]):
            subprocess.run(
                ["taskset", "-acp", CORE, str(pid)], check=True, stdout=subprocess.DEVNULL
            )
        yield Contender(
            f"instance {durability}",
            NAME,
            443,
            [host.daemon.pid],
            launch=lambda load: host.run_command("job", load),
        )
