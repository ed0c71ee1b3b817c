"""The `aws_sts` provider: keys of a role for each lease.

Source: AWS Security Token Service API Reference, AssumeRole, AssumeRoleWithWebIdentity. Nobody can
end such keys: what ends with the run is their use through us, for they never leave the proxy. The
lease stays in the journal, as alive and not revocable, until the end that STS said.
"""

from agent.credentials.aws_sts.answers import WHO, leaves_of, refused
from agent.credentials.aws_sts.calls import (
    keys_form,
    plain_request,
    role_form,
    signed_request,
    web_identity,
)
from agent.credentials.aws_sts.settings import RoleSettings, read_settings
from agent.credentials.lost import asked_ms, handle_until, lost
from agent.credentials.replies import here_ms, moment_ms, token_of
from agent.credentials.spec import (
    PROVIDER_ID_CHARACTERS_MAX,
    Client,
    CredentialError,
    HttpReply,
    Issued,
    Wanted,
)
from agent.model.credential import AwsKeys
from agent.policy.parse_aws_sts import DURATION_S_MIN

SLACK_S = 60  # for an answer that took its time


class AwsStsProvider:
    """It has no state."""

    async def issue(self, wanted: Wanted, client: Client, now_ms: int) -> Issued:
        """Assume the role.

        Raises:
            CredentialError: there are no keys, or they can't be used.
        """
        settings = read_settings(wanted.settings)
        duration_s = _duration_s(settings, wanted)
        form = role_form(settings, wanted, duration_s)
        if settings.by_token:
            token = await web_identity(settings, wanted, client, now_ms)
            form.append(("WebIdentityToken", token))
            request = plain_request(settings, "AssumeRoleWithWebIdentity", form)
        else:
            form += keys_form(settings)
            request = await signed_request(settings, "AssumeRole", form, client)
        wanted.keep(handle_until(asked_ms(wanted) + 1000 * (duration_s + SLACK_S)))
        reply = await client.http(request)
        if reply.status != 200:
            raise refused(reply)
        return _issued(reply, duration_s, now_ms)

    async def renew(self, wanted: Wanted, handle: str, client: Client, now_ms: int) -> Issued:
        """Refuse: others are asked for before their end.

        Raises:
            CredentialError: always.
        """
        raise CredentialError(f"the role's keys of {wanted.target} are not renewable")

    async def revoke(self, wanted: Wanted, handle: str, client: Client) -> None:
        """Say that nobody can; without a handle nothing was asked for.

        Raises:
            CredentialError: ends_ms: when they end.
        """
        if handle:
            raise lost(handle, "keys of AWS STS can't be revoked")

    async def probe(self, wanted: Wanted, client: Client) -> None:
        """Ask STS who we are (any keys may); of an identity token only that it can be read.

        Raises:
            CredentialError: STS does not answer, or does not know us.
        """
        settings = read_settings(wanted.settings)
        if settings.by_token:
            if not settings.of_run:  # nobody's run is asked about
                await web_identity(settings, wanted, client, 0)
            return
        reply = await client.http(await signed_request(settings, "GetCallerIdentity", [], client))
        if reply.status != 200:
            raise refused(reply)
        if not leaves_of(reply).get("Arn"):
            raise CredentialError(f"{WHO} does not say who we are: is the endpoint right?")


def _duration_s(settings: RoleSettings, wanted: Wanted) -> int:
    """Return the shortest that the target and STS let them live."""
    asked = [each for each in (wanted.ttl_s, wanted.max_ttl_s) if each]
    return max(DURATION_S_MIN, min([settings.duration_s, *asked]))


def _issued(reply: HttpReply, duration_s: int, now_ms: int) -> Issued:
    found: dict[str, object] = dict(leaves_of(reply))
    keys = AwsKeys(
        token_of(found, "AccessKeyId", WHO),
        token_of(found, "SecretAccessKey", WHO),
        token_of(found, "SessionToken", WHO),
    )
    end_ms = here_ms(moment_ms(str(found.get("Expiration", "")), WHO), reply, now_ms)
    longest_ms = now_ms + 1000 * (duration_s + SLACK_S)
    if end_ms > longest_ms:
        raise CredentialError(f"{WHO} gives keys that live longer than was asked for")
    arn = str(found.get("Arn", ""))
    shown = arn if arn.isprintable() and len(arn) <= PROVIDER_ID_CHARACTERS_MAX else ""
    handle = handle_until(end_ms)
    return Issued(keys, handle, end_ms, renewable=False, revocable=False, provider_id=shown)
