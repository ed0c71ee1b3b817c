"""The `exec` provider: a program of the operator makes a credential, and another one ends it.

Both are told the lease's id, so that what was made can be found after a crash. Without
`revoke_command` nothing is revocable, and its lease says so.
"""

import json
from collections.abc import Mapping

from agent.credentials.exec.printed import read_printed
from agent.credentials.lost import asked_ms, handle_until, lost
from agent.credentials.settings import check_settings
from agent.credentials.spec import Client, CredentialError, Issued, Program, Wanted
from agent.policy.declared import items_of
from agent.policy.parse_exec import EXEC

LONGEST_S = 86_400
EXEC_INFO = json.dumps(
    {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }
)


class ExecProvider:
    """It has no state; what a program made is found by the lease's id."""

    async def issue(self, wanted: Wanted, client: Client, now_ms: int) -> Issued:
        """Run the command, and read what it prints.

        Raises:
            CredentialError: it can't be run, fails, or prints no credential of that shape.
        """
        settings = _checked(wanted.settings)
        revocable = "revoke_command" in settings
        longest_s = int(settings.get("longest", str(LONGEST_S)))
        wanted.keep(handle_until(asked_ms(wanted) + 1000 * longest_s))
        program = Program(items_of(settings, "command"), _environment(settings, wanted, "issue"))
        printed = read_printed(await client.run(program), wanted, now_ms)
        end_ms = printed.end_ms
        handle = f"{handle_until(end_ms)} {printed.handle}".rstrip()
        if revocable and wanted.ttl_s:  # it is revoked then
            end_ms = min(end_ms or now_ms + 1000 * wanted.ttl_s, now_ms + 1000 * wanted.ttl_s)
        return Issued(
            printed.credential, handle, end_ms, renewable=False, revocable=revocable,
            provider_id=printed.handle,
        )  # fmt: skip

    async def renew(self, wanted: Wanted, handle: str, client: Client, now_ms: int) -> Issued:
        """Refuse: the program is run again before the end.

        Raises:
            CredentialError: always.
        """
        raise CredentialError(f"what a program printed for {wanted.target} is not renewable")

    async def revoke(self, wanted: Wanted, handle: str, client: Client) -> None:
        """Run the command that ends it; its exit status 0 is the word.

        Raises:
            CredentialError: it failed; ends_ms: there is no such command.
        """
        settings = _checked(wanted.settings)
        if "revoke_command" not in settings:
            if handle:
                raise lost(handle, "the target has no revoke_command")
            return  # nothing was run
        own = handle.partition(" ")[2].partition(" ")[2]
        environment = _environment(settings, wanted, "revoke") | {"LOOPWARDEN_HANDLE": own}
        await client.run(Program(items_of(settings, "revoke_command"), environment))

    async def probe(self, wanted: Wanted, client: Client) -> None:
        """Check that the programs are there and root's alone; none is run.

        Raises:
            CredentialError: it is not so.
        """
        settings = _checked(wanted.settings)
        for key in ("command", "revoke_command"):
            if key in settings:
                await client.run(Program(items_of(settings, key), only_check=True))


def _checked(settings: Mapping[str, str]) -> Mapping[str, str]:
    check_settings("exec", settings, EXEC)
    return settings


def _environment(settings: Mapping[str, str], wanted: Wanted, action: str) -> dict[str, str]:
    pairs = [each.partition("=") for each in items_of(settings, "env")]
    return {name: value for name, _, value in pairs} | {
        "LOOPWARDEN_ACTION": action,
        "LOOPWARDEN_LEASE": wanted.lease_id,
        "LOOPWARDEN_RUN": wanted.run_id,
        "LOOPWARDEN_LOOP": wanted.loop,
        "LOOPWARDEN_TARGET": wanted.target,
        "LOOPWARDEN_TTL": str(wanted.ttl_s or ""),
        "KUBERNETES_EXEC_INFO": EXEC_INFO,
    }
