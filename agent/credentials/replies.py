"""What backends answer over HTTP, read without believing it; nothing of it is ever quoted."""

import datetime as dt
import json
import re

from agent.credentials.spec import Client, CredentialError, HttpReply
from agent.model.secret import Secret

RETRY_AFTER_S_MAX = 3_600
END_MS_MAX = 1 << 48  # Unix milliseconds; a later end is nonsense
_FIELD_VALUE = re.compile(r"[!-~]+")
_LATER = frozenset({408, 425, 429})


def object_of(reply: HttpReply, who: str) -> dict[str, object]:
    """Return the JSON object of a reply.

    Raises:
        CredentialError: it has none.
    """
    try:
        found = json.loads(reply.body.reveal())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CredentialError(f"{who} answers {reply.status} without JSON: is the URL right?")
    return found


def text_of(found: dict[str, object], key: str) -> str:
    """Return a text, "" for none."""
    value = found.get(key)
    return value if isinstance(value, str) else ""


def token_of(found: dict[str, object], key: str, who: str) -> Secret:
    """Return a secret that an HTTP field may carry.

    Raises:
        CredentialError: there is none.
    """
    value = text_of(found, key)
    if not _FIELD_VALUE.fullmatch(value):
        raise CredentialError(f"{who} answers {key} that is no token")
    return Secret(value.encode())


def refusal(reply: HttpReply, who: str, why: str = "", hint: str = "") -> CredentialError:
    """Return what a status that is no success means. why: a code of ours, not the server's text."""
    later = reply.status in _LATER or reply.status >= 500
    said = f"{who} answers {reply.status}" + (f" ({why})" if why else "")
    if 300 <= reply.status < 400:
        hint = "no redirection is followed: write the URL that it leads to"
    return CredentialError(
        f"{said}: {hint}" if hint else said,
        transient=later,
        nothing_made=300 <= reply.status < 500,
        retry_after_s=retry_after_s(reply),
    )


def retry_after_s(reply: HttpReply) -> float:
    """Return the seconds of Retry-After (RFC 9110 section 10.2.3), 0 when it has none."""
    text = reply.header("retry-after")
    if not re.fullmatch(r"[0-9]{1,6}", text, re.ASCII):
        return 0.0
    return float(min(int(text), RETRY_AFTER_S_MAX))


def moment_ms(text: str, who: str) -> int:
    """Return an RFC 3339 time as Unix time.

    Raises:
        CredentialError: it is none.
    """
    try:
        moment = dt.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError(text)
        found = int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        found = 0
    if not 0 < found < END_MS_MAX:
        raise CredentialError(f"{who} says no possible time of its end")
    return found


def here_ms(end_ms: int, reply: HttpReply, now_ms: int) -> int:
    """Return a moment of the server's clock as one of the host's, by the reply's Date field.

    now_ms: of the call's begin. Date has whole seconds, so it is a second too early at most.
    """
    if not reply.date_ms:
        return end_ms
    return now_ms + end_ms - (reply.date_ms + 1_000)


async def secret_text(client: Client, kind: str, name: str, what: str) -> str:
    """Return a secret of a file, a systemd credential or a variable, without one line end.

    Raises:
        CredentialError: it can't be read, or is empty or no text.
    """
    read = {
        "file": client.file,
        "systemd_credential": client.systemd_credential,
        "environment": client.environment,
    }[kind]
    value = (await read(name)).reveal()
    if value.endswith(b"\n"):  # editors and echo(1) add it
        value = value[:-1].removesuffix(b"\r")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise CredentialError(f"{what} is empty, or no text", nothing_made=True)
    return text
