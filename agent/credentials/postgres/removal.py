"""Taking a run's role away, in an order in which each step may be the last before a crash.

No login any more (committed at once); no session any more; nothing owned any more, and no role.
Whatever fails, what was done stays done, and the whole is begun again until the role is gone.
"""

from agent.credentials.postgres.making import (
    CONFLICTS_MAX,
    check_admin,
    is_conflict,
    own,
    take_turn,
)
from agent.credentials.postgres.naming import FIND, parse_comment
from agent.credentials.postgres.settings import RoleSettings
from agent.credentials.spec import CredentialError, SqlRefused, SqlSession
from agent.policy.sql_grants import quoted

TERMINATE_MS = 3_000
SHOWN_MAX = 5  # names in an error's text
_UNDEFINED = "42704"
_NEEDS_A_PERSON = frozenset({"2BP01", "42501", "42704", "0LP01"})
MEMBER = (
    "SELECT rolsuper OR pg_has_role(current_user, $1::bigint::oid, 'USAGE')"
    " FROM pg_roles WHERE rolname = current_user"
)
# Whom to end is settled (MATERIALIZED) before anybody is ended: a planner may evaluate conditions
# in any order. $1 is the role's oid, $2 how long to wait.
SESSIONS = (
    "SELECT pid FROM pg_stat_activity WHERE usesysid = $1::bigint::oid AND pid <> pg_backend_pid()"
)
TERMINATE = (
    "WITH them AS MATERIALIZED (SELECT pid FROM pg_stat_activity"
    " WHERE usesysid = $1::bigint::oid AND pid <> pg_backend_pid())"
    " SELECT pg_terminate_backend(pid) FROM them"
)
AWAIT = (
    "WITH them AS MATERIALIZED (SELECT pid FROM pg_stat_activity"
    " WHERE usesysid = $1::bigint::oid AND pid <> pg_backend_pid())"
    " SELECT pg_terminate_backend(pid, $2::bigint) FROM them"
)
# The admin's own sessions that make this role: their label is its name.
ISSUERS = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE usename = current_user AND application_name = $1 AND pid <> pg_backend_pid()"
)
AWAIT_ISSUERS = (
    "WITH them AS MATERIALIZED (SELECT pid FROM pg_stat_activity"
    " WHERE usename = current_user AND application_name = $1 AND pid <> pg_backend_pid())"
    " SELECT pg_terminate_backend(pid, $2::bigint) FROM them"
)
# Views and rules read and write with their owner's rights, functions may be made to.
CODE = (
    "SELECT DISTINCT c.relname::text FROM pg_class c JOIN pg_rewrite r ON r.ev_class = c.oid"
    " WHERE c.relowner = $1::bigint::oid"
    " UNION SELECT proname::text FROM pg_proc WHERE proowner = $1::bigint::oid ORDER BY 1"
)
ELSEWHERE = (
    "SELECT DISTINCT datname::text FROM pg_shdepend JOIN pg_database d ON d.oid = dbid"
    " WHERE refclassid = 'pg_authid'::regclass AND refobjid = $1::bigint::oid"
    " AND datname <> current_database() ORDER BY 1"
)


async def remove(session: SqlSession, settings: RoleSettings, role: str) -> None:
    """Return when there is no such role, and nobody who could still make it.

    Raises:
        CredentialError: it may still be there.
    """
    oid = await find(session, role)
    if oid is None:  # or not yet: a cut-off issue may be about to commit
        await session.fetch(AWAIT_ISSUERS, role, TERMINATE_MS)
        if await session.fetch(ISSUERS, role):
            raise CredentialError(f"the session that makes {role} does not end", transient=True)
        oid = await find(session, role)
    if oid is None:
        return
    try:
        await _remove(session, settings, role, oid)
    except SqlRefused as error:
        if error.code == _UNDEFINED and await find(session, role) is None:
            return  # somebody else dropped it meanwhile
        if error.code in _NEEDS_A_PERSON:
            text = f"{role} has no sessions and no login, but can't be dropped: {error}"
            raise CredentialError(text, permanent=True) from error
        raise


async def find(session: SqlSession, role: str) -> int | None:
    """Return the role's oid.

    Raises:
        CredentialError: there is such a role, and it is not of ours.
    """
    rows = await session.fetch(FIND, role)
    if not rows:
        return None
    oid, remark = rows[0]
    if parse_comment(remark) is None:
        text = f"the role {role} has lost its comment: is it still ours? Drop it, or restore it"
        raise CredentialError(text, permanent=True)
    assert isinstance(oid, int)
    return oid


async def _remove(session: SqlSession, settings: RoleSettings, role: str, oid: int) -> None:
    await repeated(session, f"ALTER ROLE {quoted(role)} NOLOGIN PASSWORD NULL CONNECTION LIMIT 0")
    superuser = await check_admin(session, settings)
    if await session.fetch(MEMBER, oid) != ((True,),):
        await own(session, role)
    await _end_sessions(session, role, oid)
    for attempt in range(CONFLICTS_MAX):
        try:
            async with session.transaction():
                await take_turn(session, superuser=superuser)
                # who logged in while the login was forbidden is seen by now
                await _end_sessions(session, role, oid)
                await _refuse_code(session, settings, role, oid)
                await _disown(session, settings, role)
                await _refuse_elsewhere(session, settings, role, oid)
                await session.execute(f"DROP ROLE {quoted(role)}")
            return
        except SqlRefused as error:
            if not is_conflict(error) or attempt + 1 == CONFLICTS_MAX:
                raise


async def repeated(session: SqlSession, statement: str) -> None:
    """Run one statement, again when another transaction was at the same row.

    Raises:
        CredentialError: the server refuses it.
    """
    for attempt in range(CONFLICTS_MAX):
        try:
            await session.execute(statement)
            return
        except SqlRefused as error:
            if not is_conflict(error) or attempt + 1 == CONFLICTS_MAX:
                raise


async def _end_sessions(session: SqlSession, role: str, oid: int) -> None:
    await session.fetch(TERMINATE, oid)  # all are told before the first is waited for
    await session.fetch(AWAIT, oid, TERMINATE_MS)
    await session.execute("SELECT pg_stat_clear_snapshot()")  # in a transaction it is the first's
    if await session.fetch(SESSIONS, oid):
        text = f"sessions of {role} do not end within {TERMINATE_MS} ms"
        raise CredentialError(text, transient=True)


async def _refuse_code(session: SqlSession, settings: RoleSettings, role: str, oid: int) -> None:
    """What a run wrote must not run with the admin's rights, which are more than the run's."""
    if settings.reassign_to != settings.admin:
        return
    names = [str(name) for (name,) in await session.fetch(CODE, oid)]
    if names:
        listed = ", ".join(names[:SHOWN_MAX])
        raise CredentialError(
            f"{role} owns views, rules or functions, which would run with the rights of "
            f"{settings.admin}: {listed}. Give them to a role with no more rights than the run "
            "has, or drop them; reassign_to or on_drop of the target says so for all runs",
            permanent=True,
        )


async def _disown(session: SqlSession, settings: RoleSettings, role: str) -> None:
    """REASSIGN OWNED leaves rights, which DROP OWNED takes; both are of this database alone."""
    if settings.reassign_to:
        to = quoted(settings.reassign_to)
        await session.execute(f"REASSIGN OWNED BY {quoted(role)} TO {to}")
    await session.execute(f"DROP OWNED BY {quoted(role)}")


async def _refuse_elsewhere(
    session: SqlSession, settings: RoleSettings, role: str, oid: int
) -> None:
    names = [str(name) for (name,) in await session.fetch(ELSEWHERE, oid)]
    if names:
        listed = ", ".join(names[:SHOWN_MAX])
        raise CredentialError(
            f"{role} owns something, or has rights, in {listed}; its target is {settings.database} "
            f"alone. In each, run REASSIGN OWNED BY {role} TO … and DROP OWNED BY {role}",
            permanent=True,
        )
