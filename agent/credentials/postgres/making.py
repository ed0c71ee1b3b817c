"""Making a run's role: one transaction, in which all of it happens or nothing."""

from agent.credentials.postgres.naming import FIND, comment, literal, parse_comment, role_name
from agent.credentials.postgres.settings import RoleSettings
from agent.credentials.spec import Client, CredentialError, SqlRefused, SqlSession, Wanted
from agent.policy.sql_grants import RoleGrant, quoted, serialize_grant

VERSION_MIN = 14  # pg_terminate_backend that waits
CONFLICTS_MAX = 200  # transactions of other hosts, one of which wins each time
_CONFLICTS = frozenset({"40001", "40P01", "23505"})
_NOT_GRANTED = "01007"
_ATTRIBUTES = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT"
UNTIL = (
    "SELECT to_char((clock_timestamp() + make_interval(secs => $1::int)) AT TIME ZONE 'UTC',"
    " 'YYYY-MM-DD HH24:MI:SS.US') || '+00'"
)
ADMIN = "SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user"


def is_conflict(error: SqlRefused) -> bool:
    """Whether another transaction was at the same catalog row: it is over, and ours may repeat."""
    return error.code in _CONFLICTS or (
        error.code == "XX000" and "concurrently" in str(error)
    )  # "tuple concurrently updated" has no code of its own


async def check_admin(session: SqlSession, settings: RoleSettings) -> bool:
    """Return whether the admin is a superuser.

    Raises:
        CredentialError: it can't make roles, or the server is too old.
    """
    if session.version < VERSION_MIN:
        text = f"the server is PostgreSQL {session.version}; {VERSION_MIN} or later is needed"
        raise CredentialError(text, nothing_made=True)
    rows = await session.fetch(ADMIN)
    superuser, creates = rows[0] if rows else (False, False)
    if not superuser and not creates:
        text = f"{settings.admin} can't make roles: ALTER ROLE {quoted(settings.admin)} CREATEROLE"
        raise CredentialError(text, nothing_made=True)
    return bool(superuser)


async def take_turn(session: SqlSession, *, superuser: bool) -> None:
    """Let the transactions of all hosts that use this admin follow one another.

    Two that grant on, or drop the rights on, the same tables would fail or deadlock halfway. This
    row is changed first: who comes second waits, fails and repeats one short statement. An advisory
    lock would do, and could be held by anybody who is logged in.

    Raises:
        SqlRefused: it was another's turn (is_conflict), or the server refuses it.
    """
    harmless = "loopwarden.turn" if superuser else "application_name"
    await session.execute(f"ALTER ROLE CURRENT_USER SET {harmless} TO 'loopwarden'")


async def make_role(
    session: SqlSession,
    settings: RoleSettings,
    wanted: Wanted,
    client: Client,
    verifier: str,
    ttl_s: int,
) -> None:
    """Make the role with its grants; inside a transaction.

    Raises:
        CredentialError: a role of that name is not ours, or the admin can't grant it all.
    """
    role = role_name(wanted)
    superuser = await check_admin(session, settings)
    await take_turn(session, superuser=superuser)
    rows = await session.fetch(FIND, role)
    if rows:
        mark = parse_comment(rows[0][1])
        if mark is None or mark.lease_id != wanted.lease_id:
            raise CredentialError(f"a role {role} exists, and is not of this lease")
    # an old server lets superusers alone name the attributes of a role that exists
    what = f"ALTER ROLE {quoted(role)}" if rows else f"CREATE ROLE {quoted(role)} {_ATTRIBUTES}"
    [[until]] = await session.fetch(UNTIL, ttl_s)
    await session.execute(
        f"{what} LOGIN CONNECTION LIMIT {settings.connection_limit} PASSWORD {literal(verifier)}"
        f" VALID UNTIL {literal(str(until))}"
    )
    await session.execute(
        f"COMMENT ON ROLE {quoted(role)} IS {literal(comment(wanted, client.host))}"
    )
    await _grant_all(session, settings, role)
    await _set_all(session, settings, role)
    if not superuser:  # so that it may end the role's sessions, and reassign what it owns
        await own(session, role)


async def own(session: SqlSession, role: str) -> None:
    """Make the admin a member of the role, with the role's rights (before 16: membership is it).

    Raises:
        CredentialError: the server refuses it.
    """
    options = " WITH INHERIT TRUE, SET TRUE" if session.version >= 16 else ""
    await session.execute(f"GRANT {quoted(role)} TO CURRENT_USER{options}")


async def _grant_all(session: SqlSession, settings: RoleSettings, role: str) -> None:
    for grant in settings.grants:
        warnings = await session.execute(serialize_grant(grant, role))
        if _NOT_GRANTED in warnings:
            raise _not_granted(settings, grant, role)
    # before 16 a member may also SET ROLE; the relay refuses that everywhere
    options = " WITH INHERIT TRUE, SET FALSE" if session.version >= 16 else ""
    for member in settings.member_of:
        await session.execute(f"GRANT {quoted(member)} TO {quoted(role)}{options}")


def _not_granted(settings: RoleSettings, grant: RoleGrant, role: str) -> CredentialError:
    text = serialize_grant(grant, role).partition(" TO ")[0]
    return CredentialError(
        f"{settings.admin} has no right to {text}: it must own the objects, or have their "
        "privileges WITH GRANT OPTION",
        nothing_made=True,
    )


async def _set_all(session: SqlSession, settings: RoleSettings, role: str) -> None:
    if settings.search_path:
        path = ", ".join(map(quoted, settings.search_path))
        await session.execute(f"ALTER ROLE {quoted(role)} SET search_path TO {path}")
    if settings.statement_timeout_s:
        timeout_ms = 1000 * settings.statement_timeout_s
        await session.execute(f"ALTER ROLE {quoted(role)} SET statement_timeout TO {timeout_ms}")
