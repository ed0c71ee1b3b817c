"""The `github_app` provider: a token for each lease, revoked by DELETE /installation/token.

GitHub gives each token an hour. Only the token itself revokes it: it is held in the broker's
memory until then; after a crash its lease says that it can only expire.
"""

from agent.credentials.github_app.api import WHO, AppSettings, as_app, ask, read_settings, refused
from agent.credentials.lost import asked_ms, handle_until, hold_key, lost
from agent.credentials.replies import here_ms, moment_ms, object_of, text_of, token_of
from agent.credentials.spec import Client, CredentialError, Issued, Wanted
from agent.model.credential import Basic, Bearer, Shape
from agent.policy.parse_github_app import LEVELS

TOKEN_S, SLACK_S = 3_600, 60  # GitHub's own; and for an answer that took its time
USER = "x-access-token"  # what git's documentation has for tokens
ALWAYS = {"metadata": "read"}  # given with any other permission


class GitHubAppProvider:
    """It has no state; the broker holds the tokens."""

    async def issue(self, wanted: Wanted, client: Client, now_ms: int) -> Issued:
        """Ask for a token of what the target lists.

        Raises:
            CredentialError: there is none, or it could do more than was asked for.
        """
        settings = read_settings(wanted.settings)
        content: dict[str, object] = {}
        if settings.repositories:
            content["repositories"] = list(settings.repositories)
        if settings.permissions:
            content["permissions"] = settings.permissions
        wanted.keep(handle_until(asked_ms(wanted) + 1000 * (TOKEN_S + SLACK_S)))
        path = f"{settings.installation}/access_tokens"
        reply = await as_app(settings, "POST", path, content, client)
        if reply.status != 201:
            raise refused(reply)
        found = object_of(reply, WHO)
        token = token_of(found, "token", WHO)
        client.hold(hold_key(wanted), token)
        _check_narrow(settings, found)
        end_ms = here_ms(moment_ms(text_of(found, "expires_at"), WHO), reply, now_ms)
        handle = handle_until(end_ms)
        if wanted.ttl_s:
            end_ms = min(end_ms, now_ms + 1000 * wanted.ttl_s)  # it is revoked then
        basic = wanted.shape is Shape.BASIC
        credential = Basic(wanted.user or USER, token) if basic else Bearer(token)
        return Issued(credential, handle, end_ms, renewable=False, revocable=True)

    async def renew(self, wanted: Wanted, handle: str, client: Client, now_ms: int) -> Issued:
        """Refuse: an hour is an hour, and another one is asked for before its end.

        Raises:
            CredentialError: always.
        """
        raise CredentialError(f"an installation token of {wanted.target} is not renewable")

    async def revoke(self, wanted: Wanted, handle: str, client: Client) -> None:
        """Let the token end itself; one that GitHub takes no more is ended.

        Raises:
            CredentialError: it may still be alive; ends_ms: nobody can end it.
        """
        settings = read_settings(wanted.settings)
        token = client.held(hold_key(wanted))
        if token is None:
            if handle:
                raise lost(handle, "the token was held in memory only, and is lost")
            return  # nothing was asked for
        reply = await ask(settings, "DELETE", "/installation/token", None, token, client)
        if reply.status not in {204, 401}:
            raise refused(reply)

    async def confirm(self, wanted: Wanted, handle: str, client: Client) -> bool:
        """Show it once more: GitHub refuses it, or it is alive.

        Raises:
            CredentialError: GitHub does not say.
        """
        settings = read_settings(wanted.settings)
        token = client.held(hold_key(wanted))
        if token is None:
            return True
        path = "/installation/repositories?per_page=1"
        reply = await ask(settings, "GET", path, None, token, client)
        if reply.status == 401:
            client.let_go(hold_key(wanted))
            return True
        if reply.status in {200, 403}:
            return False
        raise refused(reply)

    async def probe(self, wanted: Wanted, client: Client) -> None:
        """Ask for the installation: it exists, is not suspended, has the permissions.

        Raises:
            CredentialError: it is not so.
        """
        settings = read_settings(wanted.settings)
        reply = await as_app(settings, "GET", settings.installation, None, client)
        if reply.status != 200:
            raise refused(reply)
        found = object_of(reply, WHO)
        if found.get("suspended_at"):
            raise CredentialError("the installation is suspended", nothing_made=True)
        missing = _more_than(settings.permissions, _permissions(found))
        if missing:
            raise CredentialError(
                f"the installation has not the permission {missing}: grant it at GitHub",
                nothing_made=True,
            )


def _permissions(found: dict[str, object]) -> dict[str, str]:
    said = found.get("permissions")
    if not isinstance(said, dict):
        raise CredentialError(f"{WHO} does not say the permissions")
    return {str(name): str(level) for name, level in said.items()}


def _more_than(asked: dict[str, str], given: dict[str, str]) -> str:
    """Return the first permission of asked that given does not cover, "" for none."""
    ranks = {level: rank for rank, level in enumerate(LEVELS, 1)}
    for name, level in sorted(asked.items()):
        if ranks.get(level, len(LEVELS) + 1) > ranks.get(given.get(name, ""), 0):
            return f"{name[:64]}:{level[:16]}"
    return ""


def _check_narrow(settings: AppSettings, found: dict[str, object]) -> None:
    """What was asked for bounds what is taken: a server that narrows nothing is refused."""
    if settings.permissions and _more_than(_permissions(found), settings.permissions | ALWAYS):
        raise CredentialError(f"{WHO} gives a token with more permissions than were asked for")
    if settings.repositories:
        said = found.get("repositories")
        names = (
            [one.get("name") for one in said if isinstance(one, dict)]
            if isinstance(said, list)
            else []
        )
        wanted = {name.lower() for name in settings.repositories}
        if (
            found.get("repository_selection") != "selected"
            or {str(name).lower() for name in names} - wanted
        ):
            raise CredentialError(f"{WHO} gives a token for more repositories than were asked for")
