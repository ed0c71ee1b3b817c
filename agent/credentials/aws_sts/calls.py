"""Requests to STS: form-encoded, signed with the operator's keys, or carrying an identity token.

Source: AWS Security Token Service API Reference, version 2011-06-15.
"""

import hashlib
import re
from dataclasses import replace
from urllib.parse import urlencode, urlsplit

from agent.credentials.aws_sts.settings import RoleSettings
from agent.credentials.replies import secret_text
from agent.credentials.run_token import token_of_run
from agent.credentials.spec import Client, CredentialError, HttpRequest, Wanted
from agent.model.credential import AwsKeys
from agent.model.secret import Secret
from agent.wire.aws.sigv4 import Signer, Unsigned

VERSION = "2011-06-15"
FORM = "application/x-www-form-urlencoded; charset=utf-8"
SESSION_NAME_CHARACTERS_MAX = 64  # STS's own
TOKEN_CHARACTERS = (4, 20_000)  # STS's own, of WebIdentityToken
SERVICE = "sts"
Form = list[tuple[str, str]]


def session_name(wanted: Wanted) -> str:
    """Return what CloudTrail calls the session: the run's id, then the loop's name."""
    loop = re.sub(r"[^A-Za-z0-9_+=,.@-]", "-", wanted.loop)
    return f"{wanted.run_id}-{loop}"[:SESSION_NAME_CHARACTERS_MAX]


def role_form(settings: RoleSettings, wanted: Wanted, duration_s: int) -> Form:
    """Return the parameters that both actions have."""
    form = [
        ("RoleArn", settings.role_arn),
        ("RoleSessionName", session_name(wanted)),
        ("DurationSeconds", str(duration_s)),
    ]
    if settings.session_policy:
        form.append(("Policy", settings.session_policy))
    form += [
        (f"PolicyArns.member.{number}.arn", arn)
        for number, arn in enumerate(settings.policy_arns, 1)
    ]
    return form


def keys_form(settings: RoleSettings) -> Form:
    """Return the parameters that AssumeRole alone has."""
    form: Form = []
    for number, (key, value) in enumerate(settings.session_tags, 1):
        form += [(f"Tags.member.{number}.Key", key), (f"Tags.member.{number}.Value", value)]
    if settings.external_id:
        form.append(("ExternalId", settings.external_id))
    if settings.source_identity:
        form.append(("SourceIdentity", settings.source_identity))
    return form


async def signed_request(
    settings: RoleSettings, action: str, form: Form, client: Client
) -> HttpRequest:
    """Return a request with the operator's own signature.

    Raises:
        CredentialError: the keys can't be used.
    """
    secret = await secret_text(client, *settings.source, "the secret key of access_key_id")
    keys = AwsKeys(Secret(settings.access_key_id.encode()), Secret(secret.encode()), None)
    if not re.fullmatch(r"[!-~]{16,256}", secret):
        raise CredentialError("the secret key of access_key_id is no such key", nothing_made=True)
    request = plain_request(settings, action, form)
    parts = urlsplit(request.url)
    body = request.body.reveal() if request.body is not None else b""
    usual = {"https": 443, "http": 80}[parts.scheme]
    host = parts.netloc if parts.port != usual else parts.netloc.removesuffix(f":{usual}")
    signed = Signer(keys, settings.region, SERVICE).sign(
        Unsigned(
            b"POST", (parts.path or "/").encode(), None,
            ((b"content-type", FORM.encode()), (b"host", host.lower().encode())),
            hashlib.sha256(body).hexdigest().encode(),
        ),
        client.now_ms(),
    )  # fmt: skip
    added = (line.partition(b": ") for line in signed.lines)
    headers = dict(request.headers) | {name.decode(): Secret(value) for name, _, value in added}
    return replace(request, headers=headers)


async def web_identity(settings: RoleSettings, wanted: Wanted, client: Client, now_ms: int) -> str:
    """Return the identity token: the file's, or the one that let the run start.

    Raises:
        CredentialError: there is none, or it can't be read.
    """
    if settings.of_run:
        token = token_of_run(wanted, now_ms).reveal().decode("ascii")
    else:
        token = await secret_text(client, "file", settings.token_file, "the identity token")
    least, most = TOKEN_CHARACTERS
    if not re.fullmatch(r"[!-~]+", token) or not least <= len(token) <= most:
        raise CredentialError("the identity token is no token", nothing_made=True)
    return token


def plain_request(settings: RoleSettings, action: str, form: Form) -> HttpRequest:
    """Return a request without a signature: its form shows who asks."""
    whole = [("Action", action), ("Version", VERSION), *form]
    endpoint = settings.endpoint
    url = endpoint if urlsplit(endpoint).path else f"{endpoint}/"
    body = Secret(urlencode(whole).encode())
    return HttpRequest("POST", url, {"Content-Type": FORM}, body, settings.ca)
