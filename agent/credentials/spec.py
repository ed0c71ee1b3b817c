"""The contract of a credential provider: issue, renew, revoke, confirm, probe.

A provider is a folder with a `SPEC`. It does no input or output itself: the broker hands it a
`Client`. Its handle is what the journal keeps of a lease: enough to revoke it after a crash, and
never the secret. Every method may be called again after a crash with the same arguments; revoke
of what is gone succeeds.

Times: `now_ms` is the host's Unix time at the call. A server that tells its own time (a reply's
Date field) decides: the provider gives `expires_ms` as `now_ms` plus what remains by the server's
clock. The broker counts from there on a clock that nobody sets.

Bounds: the broker cuts each call off (agent/broker/lease_calls.py has the numbers); a cut-off
issue is followed by revoke with handle "", which must find what was made by its lease id. Raise
CredentialError and nothing else: anything else is taken for a broken answer, and its text is
shown to nobody.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, runtime_checkable

from agent.model.credential import Credential, Shape
from agent.model.ids import LeaseId, LoopName, RunId, TargetName
from agent.model.secret import Secret

SECRET_BYTES_MAX = 16 << 10  # a credential crosses to the proxy in one frame
HANDLE_CHARACTERS_MAX = 1_024
PROVIDER_ID_CHARACTERS_MAX = 512
SQL_ROWS_MAX = 1_000  # of one answer
SQL_CONNECT_S, SQL_STATEMENT_S = 5.0, 10.0
HTTP_S = 10.0  # from the name's look-up to the answer's last byte
HTTP_BODY_BYTES_MAX = 1 << 20  # of an answer, where a request asks for more than a secret's bytes
HTTP_HEADER_BYTES_MAX = 16 << 10  # of an answer
SHARED_MAX = 256  # values that providers keep between calls; past it the oldest is dropped
HELD_MAX = 16_384  # secrets that are held until they are revoked; past it the oldest is dropped
REMEMBERED_MAX = 256  # secrets on stable storage; past it none is added
Value = TypeVar("Value")


class CredentialError(Exception):
    """The provider could not do it. The text names cause and next step, never a secret.

    transient: trying again later may help. permanent (of revoke): trying again will not help, so
    a person is told now, not after many failures. nothing_made (of issue): it is certain that
    nothing exists, so that there is nothing to take away; say it only where it is (nothing was
    sent, or the backend said no before it made anything). Of renew, without transient: it can't
    be renewed any more, and is replaced before its end; gone: the backend takes it no more, so
    that it is replaced now. retry_after_s: the backend said when to ask again, at the earliest.
    ends_ms (of revoke): nobody can end it any more, and at this Unix time at the latest it has
    ended by itself; until then it is shown as alive and not revocable, and never as revoked.
    """

    def __init__(
        self,
        text: str,
        *,
        transient: bool = False,
        permanent: bool = False,
        nothing_made: bool = False,
        gone: bool = False,
        retry_after_s: float = 0.0,
        ends_ms: int = 0,
    ) -> None:
        super().__init__(text)
        self.transient = transient
        self.permanent = permanent
        self.nothing_made = nothing_made
        self.gone = gone
        self.retry_after_s = retry_after_s
        self.ends_ms = ends_ms


class SqlRefused(CredentialError):
    """The server was reached and refused; its code is an SQLSTATE (PostgreSQL, appendix A)."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class SqlServer:
    """A PostgreSQL server, and who we are there.

    host and port are dialled; name is what its certificate is for, "" for a server without TLS
    (the operator said so). ca is the path of the CA's PEM file, "" for the system's roots. label
    is our application_name, so that our own sessions can be told apart.
    """

    host: str
    port: int
    name: str
    ca: str
    user: str
    database: str
    label: str


class SqlSession(Protocol):
    """One session; search_path is pg_catalog alone. SqlRefused leaves it usable."""

    @property
    def version(self) -> int:
        """The server's major version."""
        ...

    async def execute(self, text: str) -> tuple[str, ...]:
        """Run statements, and return the codes of the warnings that they gave.

        Raises:
            SqlRefused: the server said no.
            CredentialError: no answer within SQL_STATEMENT_S, or the connection is gone.
        """
        ...

    async def fetch(self, text: str, *arguments: str | int) -> tuple[tuple[object, ...], ...]:
        """Return the rows of one query; it is read only up to SQL_ROWS_MAX.

        Raises:
            SqlRefused, CredentialError: as execute, and for more rows.
        """
        ...

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """Commit what is done inside, or nothing of it; one at a time for each server."""
        ...


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, and whom it may reach.

    url: https://HOST[:PORT]/…, where the certificate must be HOST's; or http://…, for a literal
    loopback address, or anywhere if allow_cleartext. ca is the path of a PEM file, "" for the
    system's roots. What is secret in a header or body is given as Secret.
    """

    method: str
    url: str
    headers: Mapping[str, str | Secret] = field(default_factory=dict)
    body: Secret | None = None
    ca: str = ""
    allow_cleartext: bool = False
    within_s: float = HTTP_S  # at most HTTP_S
    body_bytes_max: int = SECRET_BYTES_MAX  # of the answer; at most HTTP_BODY_BYTES_MAX


@dataclass(frozen=True, slots=True)
class HttpReply:
    """What the server answered, a refusal or redirection too: none is followed.

    headers: names in lower case. date_ms: the server's clock by the Date field, as Unix time, 0
    when it told none.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: Secret
    date_ms: int

    def header(self, name: str) -> str:
        """Return the first field of that (lower case) name, "" when there is none."""
        return next((value for key, value in self.headers if key == name), "")


@dataclass(frozen=True, slots=True)
class Program:
    """A program of the operator's, by its absolute path, and what it is told.

    only_check: do not run it, only say whether it could be.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    only_check: bool = False


@dataclass(frozen=True, slots=True)
class Kept(Generic[Value]):
    """A value that providers share between calls, and for how long it is used as it is."""

    value: Value
    fresh_s: float


class Client(Protocol):
    """What a provider may do in the world. Answers are bounded.

    host names this installation, so that what it made can be told from what others made.
    """

    @property
    def host(self) -> str:
        """At most 64 letters, digits and '-'; the same after a restart."""
        ...

    def random(self, count: int) -> bytes:
        """Return random bytes that nobody can guess."""
        ...

    def now_ms(self) -> int:
        """Return the host's Unix time, for what we sign."""
        ...

    def sql(self, server: SqlServer, password: Secret) -> AbstractAsyncContextManager[SqlSession]:
        """Connect, verified, and disconnect at the end.

        Raises:
            CredentialError: on entering: no connection within SQL_CONNECT_S, not the server of
                that name, or it refuses us (SqlRefused).
        """
        ...

    async def http(self, request: HttpRequest) -> HttpReply:
        """Send one request over a connection of its own, and return the answer.

        No proxy, no redirection, no compression; the answer's body is at most
        request.body_bytes_max, all of it within request.within_s. Nothing of it is logged.

        Raises:
            CredentialError: no answer, not the server of that name, too much, or no HTTP/1.1;
                nothing_made: nothing was sent.
        """
        ...

    async def shared(
        self, key: str, make: Callable[[Value | None], Awaitable[Kept[Value]]]
    ) -> Value:
        """Return the value of a key; make it when there is none, or it is not fresh any more.

        make is given the old value. It runs once for all who ask at once; its failure is theirs,
        and is not kept. A value lives in memory, until SHARED_MAX others came or the broker ends.
        """
        ...

    def forget(self, key: str, value: object) -> None:
        """Drop a shared value, unless it is another one by now."""
        ...

    def hold(self, key: str, secret: Secret) -> None:
        """Hold in memory what can be revoked only by showing it; of a crash nothing is left."""
        ...

    def held(self, key: str) -> Secret | None:
        """Return what is held, None when nothing is (any more)."""
        ...

    def let_go(self, key: str) -> None:
        """Hold it no longer."""
        ...

    def turn(self, key: str) -> AbstractAsyncContextManager[None]:
        """Wait until nobody else is inside with this key, for what works one at a time."""
        ...

    async def recall(self, key: str) -> Secret | None:
        """Return what was remembered, None for nothing.

        Raises:
            CredentialError: it can't be read.
        """
        ...

    async def remember(self, key: str, secret: Secret) -> None:
        """Return when a secret is on stable storage, in a file that only the broker can read.

        For what a backend changes at each use (a refresh token), and nothing else.

        Raises:
            CredentialError: it is not, or there are REMEMBERED_MAX others.
        """
        ...

    async def run(self, program: Program) -> Secret:
        """Run it without power, and return its standard output: at most SECRET_BYTES_MAX.

        Raises:
            CredentialError: it can't be started, fails, prints more, or takes longer than 15 s.
        """
        ...

    def alarm(self, text: str) -> None:
        """Tell a person that a secret of ours was used by another. The text holds no secret."""
        ...

    async def file(self, path: str) -> Secret:
        """Return a secret file's bytes.

        Raises:
            CredentialError: absent, not a regular file, a link, readable by others, too large.
        """
        ...

    async def systemd_credential(self, name: str) -> Secret:
        """Return a credential that systemd gave the service (LoadCredential=).

        Raises:
            CredentialError: there is none of that name.
        """
        ...

    async def environment(self, name: str) -> Secret:
        """Return a variable of the broker's own environment.

        Raises:
            CredentialError: it is not set.
        """
        ...


def _kept_nowhere(_handle: str) -> None:
    """Nothing of it outlives the caller (a probe, a test)."""


@dataclass(frozen=True, slots=True)
class RunToken:
    """The verified OpenID Connect token that let a run start (agent/credentials/run_token.py).

    token None: the broker was started anew since; it is in no journal, so that it is gone.
    ends_ms: Unix time of its `exp`, by its issuer's clock.
    """

    subject: str
    token: Secret | None = field(default=None, repr=False)
    ends_ms: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to issue, for whom. lease_id is unique: a provider names its credential by it.

    ttl_s and max_ttl_s are the target's own bounds, 0 when it has none: ask the backend for no
    more. subject (of issue) is the run's verified identity, "" when it is a local user's. keep: of
    issue; call it with a handle as soon as there is something to take away, before the next step:
    it returns when the handle is on stable storage, and raises CredentialError if it can't be.
    What revoke is given after a crash is the last one kept. run_token: of issue, None for a run
    that was started without one; it is written nowhere.
    """

    lease_id: LeaseId
    run_id: RunId
    loop: LoopName
    target: TargetName
    settings: Mapping[str, str]
    shape: Shape
    name: str
    user: str
    ttl_s: int = 0
    max_ttl_s: int = 0
    subject: str = ""
    keep: Callable[[str], None] = field(default=_kept_nowhere, compare=False, repr=False)
    run_token: RunToken | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Issued:
    """A credential that exists now. expires_ms is Unix time; 0: it does not expire by itself.

    revocable False: the backend can't end it, and nothing is shown as revoked. provider_id is the
    backend's own name of it, for people ("" when it has none); never the secret. max_ms is Unix
    time past which no renewal can take it, 0 when that is not known.
    """

    credential: Credential
    handle: str
    expires_ms: int
    renewable: bool
    revocable: bool
    provider_id: str = ""
    max_ms: int = 0


@dataclass(frozen=True, slots=True)
class Renewed:
    """The same credential lasts until then."""

    expires_ms: int
    max_ms: int = 0


class Provider(Protocol):
    """One provider; it has no state of its own between calls."""

    async def issue(self, wanted: Wanted, client: Client, now_ms: int) -> Issued:
        """Make a credential.

        Raises:
            CredentialError: it can't be made; nothing is left behind.
        """
        ...

    async def renew(
        self, wanted: Wanted, handle: str, client: Client, now_ms: int
    ) -> "Issued | Renewed":
        """Make a renewable credential last longer. Its secret stays: of Issued, times are read.

        Raises:
            CredentialError: it is not renewable or gone; transient: it may be asked again.
        """
        ...

    async def revoke(self, wanted: Wanted, handle: str, client: Client) -> None:
        """End a credential; handle "" when it is not known whether it was issued: find by id.

        Raises:
            CredentialError: it may still be alive; the broker tries again, later and later.
        """
        ...

    async def probe(self, wanted: Wanted, client: Client) -> None:
        """Check that issue would work, without making anything.

        Raises:
            CredentialError: it would not.
        """
        ...


@runtime_checkable
class Confirms(Protocol):
    """A provider that can ask its backend what became of a credential. Not all can."""

    async def confirm(self, wanted: Wanted, handle: str, client: Client) -> bool:
        """Return whether it is gone. Asked after revoke, and after the end of its time.

        Raises:
            CredentialError: that can't be said now; the broker asks again.
        """
        ...


@runtime_checkable
class Sweeps(Protocol):
    """A provider that can find what this host made and no lease is known of any more."""

    async def sweep(
        self, wanted: Wanted, known: Iterable[LeaseId], before_ms: int, client: Client
    ) -> tuple[str, ...]:
        """End such credentials; return their names. Asked at each start of the broker.

        Of wanted, the settings count: they name the backend. known: the leases that are not over.
        before_ms: what was asked for at or after this Unix time is let be. What another host made
        (see Client.host) is let be too.

        Raises:
            CredentialError: not all could be ended; transient: it may be asked again.
        """
        ...


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """What a provider's folder exports as `SPEC`.

    revocable False: none of its credentials can be ended by us (see Issued).
    """

    name: str
    shapes: frozenset[Shape]
    settings: tuple[str, ...]
    make: Callable[[], Provider]
    revocable: bool = True
