"""What providers may read: the `Client` of the broker."""

import hashlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

from agent.broker.files import Untrusted, read_secret
from agent.broker.held import Held
from agent.broker.http_client import Http
from agent.broker.program_runner import ProgramRunner
from agent.broker.remembered import Remembered
from agent.broker.shared import Shared
from agent.broker.sql_client import Session, Sql
from agent.credentials.spec import (
    HTTP_BODY_BYTES_MAX,
    SECRET_BYTES_MAX,
    CredentialError,
    HttpReply,
    HttpRequest,
    Kept,
    Program,
    SqlServer,
)
from agent.model.secret import Secret
from agent.runtime import clock
from agent.runtime.programs import Programs

SYSTEMD_CREDENTIALS_MAX = 256
MACHINE_ID = Path("/etc/machine-id")
Value = TypeVar("Value")


class BrokerClient:
    """Reads files, systemd's credentials and the environment; see `Client`."""

    def __init__(
        self,
        systemd: Mapping[str, Secret],
        environment: Mapping[str, str],
        instance: str = "",
        alarm: Callable[[str], None] = lambda _: None,
        remembered: Path | None = None,
        programs: Programs | None = None,
    ) -> None:
        """Systemd holds what `systemd_credentials` read while we were root.

        remembered: the folder of secrets on stable storage, None for none.
        """
        self._systemd = systemd
        self._environment = environment
        self._alarm = alarm
        self._sql = Sql()
        self._http = Http()
        self._shared = Shared()
        self._held = Held()
        self._remembered = Remembered(remembered)
        self._programs = ProgramRunner(programs)
        self.host = host_name(instance)

    def random(self, count: int) -> bytes:
        """See Client.random."""
        return os.urandom(count)

    def now_ms(self) -> int:
        """See Client.now_ms."""
        return clock.unix_ms()

    def sql(self, server: SqlServer, password: Secret) -> AbstractAsyncContextManager[Session]:
        """See Client.sql."""
        return self._sql.session(server, password)

    async def http(self, request: HttpRequest) -> HttpReply:
        """See Client.http.

        Raises:
            CredentialError: see there.
        """
        most = min(request.body_bytes_max, HTTP_BODY_BYTES_MAX)
        return await self._http.request(request, most)

    async def shared(
        self, key: str, make: Callable[[Value | None], Awaitable[Kept[Value]]]
    ) -> Value:
        """See Client.shared."""
        return await self._shared.get(key, make)

    def forget(self, key: str, value: object) -> None:
        """See Client.forget."""
        self._shared.forget(key, value)

    def hold(self, key: str, secret: Secret) -> None:
        """See Client.hold."""
        self._held.hold(key, secret)

    def held(self, key: str) -> Secret | None:
        """See Client.held."""
        return self._held.held(key)

    def let_go(self, key: str) -> None:
        """See Client.let_go."""
        self._held.let_go(key)

    def turn(self, key: str) -> AbstractAsyncContextManager[None]:
        """See Client.turn."""
        return self._held.turn(key)

    async def recall(self, key: str) -> Secret | None:
        """See Client.recall.

        Raises:
            CredentialError: see there.
        """
        return self._remembered.recall(key)

    async def remember(self, key: str, secret: Secret) -> None:
        """See Client.remember.

        Raises:
            CredentialError: see there.
        """
        self._remembered.remember(key, secret)

    async def run(self, program: Program) -> Secret:
        """See Client.run.

        Raises:
            CredentialError: see there.
        """
        return await self._programs.run(program)

    def alarm(self, text: str) -> None:
        """See Client.alarm."""
        self._alarm(text)

    async def file(self, path: str) -> Secret:
        """See Client.file.

        Raises:
            CredentialError: the file can't be read or trusted.
        """
        try:
            return Secret(read_secret(path, SECRET_BYTES_MAX))
        except Untrusted as error:
            raise CredentialError(str(error)) from error
        except PermissionError as error:
            raise CredentialError(
                f"{path} can't be read by the broker (uid {os.geteuid()}): "
                f"run `chown {os.geteuid()} {path}`, mode 0600"
            ) from error
        except OSError as error:
            raise CredentialError(f"{path}: {error.strerror}", transient=True) from error

    async def systemd_credential(self, name: str) -> Secret:
        """See Client.systemd_credential.

        Raises:
            CredentialError: there is none of that name.
        """
        if name not in self._systemd:
            raise CredentialError(
                f"systemd gave no credential {name!r}: add LoadCredential={name}:FILE to "
                "loopwarden.service and restart it"
            )
        return self._systemd[name]

    async def environment(self, name: str) -> Secret:
        """See Client.environment.

        Raises:
            CredentialError: it is not set.
        """
        value = self._environment.get(name)
        if value is None:
            # Without the name: the line reaches the loop, and the name may be a secret put there.
            raise CredentialError("the broker's environment lacks the variable of the policy")
        raw = os.fsencode(value)
        if len(raw) > SECRET_BYTES_MAX:
            raise CredentialError(f"the policy's variable has more than {SECRET_BYTES_MAX} bytes")
        return Secret(raw)


def host_name(instance: str) -> str:
    """Return what tells this installation from others: not its secret, and not guessable names.

    The machine id, the host's name (a copied machine has the same id) and the daemon's instance.
    """
    try:
        machine = MACHINE_ID.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        machine = ""
    text = f"loopwarden\0{machine}\0{socket.gethostname()}\0{instance}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def systemd_credentials(directory: str) -> dict[str, Secret]:
    """Return what $CREDENTIALS_DIRECTORY holds: read as root, for the service's user may not.

    Raises:
        OSError: a file can't be read.
        ValueError: a file is too large, or there are more than SYSTEMD_CREDENTIALS_MAX.
    """
    if not directory:
        return {}
    names = sorted(os.listdir(directory))
    if len(names) > SYSTEMD_CREDENTIALS_MAX:
        raise ValueError(f"{directory} has more than {SYSTEMD_CREDENTIALS_MAX} credentials")
    found: dict[str, Secret] = {}
    for name in names:
        data = Path(directory, name).read_bytes()
        if len(data) > SECRET_BYTES_MAX:
            raise ValueError(f"{directory}/{name} has more than {SECRET_BYTES_MAX} bytes")
        found[name] = Secret(data)
    return found
