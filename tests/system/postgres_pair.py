"""The same program run twice against one server: directly, and as a loop; outputs to compare."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.postgres import SUPERUSER_PASSWORD
from tests.system.postgres_site import Stage

USES = Path(__file__).with_name("postgres_uses")
DATABASE = "scratch"
Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True)
class Pair:
    """Who runs programs both ways, as the same user and with the same environment otherwise."""

    stage: Stage
    folder: Path  # both runs may write there, each in a folder of its own
    timeout_s: float = 400.0  # of what hangs
    name: str = "all.test.internal"
    settings: Mapping[str, str] = field(default_factory=dict)

    def file(self, name: str) -> str:
        """Return where a file of postgres_uses is, readable by a loop."""
        path = shutil.copy(USES / name, self.folder)
        Path(path).chmod(0o644)
        return str(path)

    def fresh(self) -> None:
        """Make the database that both use anew: a copy of `orders`."""
        ask = self.stage.site.server.ask
        ask(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)", database="postgres")
        ask(f"CREATE DATABASE {DATABASE} TEMPLATE orders", database="postgres")

    def direct(self, command: Sequence[str]) -> Done:
        """Run it with the superuser's password, verified as the loop's connection is."""
        site = self.stage.site
        drop = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
        words = {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PGHOST": self.name,
            "PGHOSTADDR": site.far.address4, "PGPORT": str(site.server.port),
            "PGPASSWORD": SUPERUSER_PASSWORD, "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": str(site.folder / "ca.pem"), **self._shared("direct"),
        }  # fmt: skip
        return subprocess.run(
            [*drop, *command], capture_output=True, text=True, timeout=self.timeout_s,
            check=False, env=words, cwd="/",
        )  # fmt: skip

    def through(self, command: Sequence[str], loop: str = "everything") -> Done:
        """Run it as a loop, which knows a name and no password."""
        words = {"PGHOST": self.name, "PGPORT": "5432", **self._shared("through")}
        given = [f"{key}={value}" for key, value in words.items()]
        return self.stage.host.run(loop, ["env", *given, *command], timeout_s=self.timeout_s)

    def _shared(self, way: str) -> dict[str, str]:
        home = self.folder / way
        home.mkdir(exist_ok=True)
        home.chmod(0o777)
        return {"PGUSER": "postgres", "PGDATABASE": DATABASE, "HOME": str(home),
                "PYTHONDONTWRITEBYTECODE": "1", **self.settings}  # fmt: skip


def told(done: Done) -> list[str]:
    """Return what a program said, line by line, and how it ended."""
    return [*done.stdout.splitlines(), *done.stderr.splitlines(), f"exit {done.returncode}"]
