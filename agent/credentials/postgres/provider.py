"""The `postgres` provider: CREATE ROLE for a run, DROP ROLE at its end.

PostgreSQL 14 to 17 and later. The admin needs CREATEROLE, and the privileges that it grants WITH
GRANT OPTION (or ownership); it need not be a superuser.
"""

from collections.abc import Iterable

from agent.credentials.postgres.making import CONFLICTS_MAX, UNTIL, is_conflict, make_role
from agent.credentials.postgres.naming import (
    PATTERN,
    ROLES,
    Mark,
    lease_ms,
    literal,
    parse_comment,
    role_name,
)
from agent.credentials.postgres.removal import find, remove, repeated
from agent.credentials.postgres.scram import PASSWORD_BYTES, SALT_BYTES, new_password, verifier
from agent.credentials.postgres.settings import RoleSettings, read_settings
from agent.credentials.spec import (
    Client,
    CredentialError,
    Issued,
    Renewed,
    SqlRefused,
    Wanted,
)
from agent.model.credential import Password
from agent.model.ids import LeaseId
from agent.model.secret import Secret
from agent.policy.sql_grants import quoted

TTL_S = 3_600  # of VALID UNTIL, when the target says nothing; renewed while the run lasts
LABEL = "loopwarden"


class PostgresProvider:
    """It has no state; what it made is found by name."""

    async def issue(self, wanted: Wanted, client: Client, now_ms: int) -> Issued:
        """Make the role.

        Raises:
            CredentialError: it can't be made.
        """
        settings = read_settings(wanted.settings)
        role, ttl_s = role_name(wanted), _ttl_s(wanted, now_ms)
        password = new_password(client.random(PASSWORD_BYTES))
        await _make(settings, wanted, client, password, ttl_s)
        return Issued(
            Password(role, Secret(password)),
            handle=role,
            expires_ms=now_ms + 1000 * ttl_s,
            renewable=True,
            revocable=True,
            provider_id=role,
            max_ms=_max_ms(wanted),
        )

    async def renew(self, wanted: Wanted, handle: str, client: Client, now_ms: int) -> Renewed:
        """Let it log in for longer.

        Raises:
            CredentialError: there is no such role any more, or the server does not answer.
        """
        del handle  # the name is known
        settings = read_settings(wanted.settings)
        role, ttl_s = role_name(wanted), _ttl_s(wanted, now_ms)
        async with client.sql(settings.server(LABEL), await settings.password(client)) as session:
            if await find(session, role) is None:
                raise CredentialError(f"there is no role {role}")
            [[until]] = await session.fetch(UNTIL, ttl_s)
            statement = f"ALTER ROLE {quoted(role)} VALID UNTIL {literal(str(until))}"
            await repeated(session, statement)
        return Renewed(now_ms + 1000 * ttl_s, _max_ms(wanted))

    async def revoke(self, wanted: Wanted, handle: str, client: Client) -> None:
        """End its sessions, and drop it.

        Raises:
            CredentialError: it may still be there.
        """
        del handle
        settings = read_settings(wanted.settings)
        async with client.sql(settings.server(LABEL), await settings.password(client)) as session:
            await remove(session, settings, role_name(wanted))

    async def confirm(self, wanted: Wanted, handle: str, client: Client) -> bool:
        """Ask the server whether it is gone.

        Raises:
            CredentialError: the server does not answer.
        """
        del handle
        settings = read_settings(wanted.settings)
        async with client.sql(settings.server(LABEL), await settings.password(client)) as session:
            return not await session.fetch(
                "SELECT 1 FROM pg_roles WHERE rolname = $1", role_name(wanted)
            )

    async def probe(self, wanted: Wanted, client: Client) -> None:
        """Make the role in a transaction that is rolled back.

        Raises:
            CredentialError: it can't be made.
        """
        settings = read_settings(wanted.settings)
        password = new_password(client.random(PASSWORD_BYTES))
        try:
            await _make(settings, wanted, client, password, TTL_S, keep=False)
        except _Undone:
            return

    async def sweep(
        self, wanted: Wanted, known: Iterable[LeaseId], before_ms: int, client: Client
    ) -> tuple[str, ...]:
        """Drop this host's roles that no lease is known of; return their names.

        wanted names the server and the admin by its settings. known: the journal's open leases.
        before_ms: leases asked for later are let be, for `known` may be older than they are.
        Roles that other hosts made are theirs.

        Raises:
            CredentialError: not all could be dropped; those that could are.
        """
        settings = read_settings(wanted.settings)
        kept = frozenset(known)
        dropped: list[str] = []
        failed: list[CredentialError] = []
        async with client.sql(settings.server(LABEL), await settings.password(client)) as session:
            for name, remark in await session.fetch(ROLES, PATTERN):
                mark = parse_comment(remark)
                if mark is None or not _is_stray(mark, client.host, kept, before_ms):
                    continue
                try:
                    await remove(session, settings, str(name))
                    dropped.append(str(name))
                except CredentialError as error:
                    failed.append(error)
        if failed:
            text = f"{len(failed)} roles of runs that are gone remain; the first: {failed[0]}"
            raise CredentialError(text, transient=any(error.transient for error in failed))
        return tuple(dropped)


class _Undone(CredentialError):
    """What was made in a transaction is not to stay."""


async def _make(
    settings: RoleSettings,
    wanted: Wanted,
    client: Client,
    password: bytes,
    ttl_s: int,
    *,
    keep: bool = True,
) -> None:
    """Connect as the role's name, so that a cut-off attempt can be found and ended."""
    text = verifier(password, client.random(SALT_BYTES))
    server = settings.server(role_name(wanted))
    async with client.sql(server, await settings.password(client)) as session:
        for attempt in range(CONFLICTS_MAX):
            try:
                async with session.transaction():
                    await make_role(session, settings, wanted, client, text, ttl_s)
                    if not keep:
                        raise _Undone("")
                return
            except SqlRefused as error:
                # refused, and so rolled back; but a server that ends may have committed before
                error.nothing_made = not error.code.startswith(("57", "08"))
                if not is_conflict(error) or attempt + 1 == CONFLICTS_MAX:
                    raise


def _ttl_s(wanted: Wanted, now_ms: int) -> int:
    ttl_s = wanted.ttl_s or TTL_S
    max_ms = _max_ms(wanted)
    return min(ttl_s, max(1, (max_ms - now_ms) // 1000)) if max_ms else ttl_s


def _max_ms(wanted: Wanted) -> int:
    """Return the Unix time past which the target lets no lease last, 0 for none."""
    return lease_ms(wanted.lease_id) + 1000 * wanted.max_ttl_s if wanted.max_ttl_s else 0


def _is_stray(mark: Mark, host: str, known: frozenset[LeaseId], before_ms: int) -> bool:
    return mark.host == host and mark.lease_id not in known and mark.lease_ms < before_ms
