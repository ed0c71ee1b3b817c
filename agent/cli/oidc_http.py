"""Places that give a token for the asking: GitHub Actions, and metadata servers of clouds.

A GET, an answer 200, bounded in size and in time as a whole; redirections are not followed. The
metadata servers are at a link-local address, in clear text, by their makers' design; of them no
proxy is used.
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import IO
from urllib.parse import quote, urlsplit

ANSWER_BYTES_MAX = 65_536
GITHUB_S, METADATA_S = 10.0, 3.0  # for the whole answer
METADATA = "169.254.169.254"
_GITHUB_URL, _GITHUB_TOKEN = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"


class NoToken(Exception):
    """There is none; the text says why, and holds no secret."""


def is_github(environment: Mapping[str, str]) -> bool:
    """Return whether this is a job of GitHub Actions that may ask (permission id-token: write)."""
    return bool(environment.get(_GITHUB_URL) and environment.get(_GITHUB_TOKEN))


def github(environment: Mapping[str, str], audience: str) -> str:
    """Return the job's token.

    Raises:
        NoToken: not such a job, or no answer.
    """
    if not is_github(environment):
        raise NoToken("not a job of GitHub Actions with the permission 'id-token: write'")
    url = environment[_GITHUB_URL]
    if not url.startswith("https://"):
        raise NoToken(f"{_GITHUB_URL} is not https")
    mark = "&" if "?" in url else "?"
    headers = {"Authorization": f"Bearer {environment[_GITHUB_TOKEN]}"}
    answer, _ = _get(f"{url}{mark}audience={quote(audience, safe='')}", headers, GITHUB_S)
    return _field(answer, "value", "GitHub Actions")


def google(environment: Mapping[str, str], audience: str) -> str:
    """Return the machine's token, by the metadata server (or $GCE_METADATA_HOST).

    Raises:
        NoToken: no answer, or none of Google's.
    """
    host = environment.get("GCE_METADATA_HOST") or METADATA
    path = "computeMetadata/v1/instance/service-accounts/default/identity"
    url = f"http://{host}/{path}?audience={quote(audience, safe='')}&format=full"
    answer, flavor = _get(url, {"Metadata-Flavor": "Google"}, METADATA_S, proxy=False)
    if flavor != "Google":
        raise NoToken("what answers is no metadata server of Google's")
    return answer.decode("ascii", "replace")


def azure(environment: Mapping[str, str], audience: str) -> str:
    """Return the managed identity's token, by the metadata server (or $IDENTITY_ENDPOINT).

    Raises:
        NoToken: no answer.
    """
    resource = quote(audience, safe="")
    endpoint = environment.get("IDENTITY_ENDPOINT")
    if endpoint:
        headers = {"X-IDENTITY-HEADER": environment.get("IDENTITY_HEADER", "")}
        url = f"{endpoint}?api-version=2019-08-01&resource={resource}"
    else:
        headers = {"Metadata": "true"}
        path = "metadata/identity/oauth2/token?api-version=2018-02-01"
        url = f"http://{METADATA}/{path}&resource={resource}"
    answer, _ = _get(url, headers, METADATA_S, proxy=False)
    return _field(answer, "access_token", "the metadata server")


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        return None


def _get(
    url: str, headers: Mapping[str, str], within_s: float, *, proxy: bool = True
) -> tuple[bytes, str]:
    """Return the body of an answer 200, and its Metadata-Flavor."""
    name = urlsplit(url).netloc.rpartition("@")[2]
    if not url.startswith(("https://", "http://")):
        raise NoToken("its URL is not http")
    handlers: list[urllib.request.BaseHandler] = [_NoRedirection()]
    if not proxy:
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    until_s = time.monotonic() + within_s
    late = f"{name} did not answer within {within_s:.0f} s"
    try:
        request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - http alone
        with opener.open(request, timeout=within_s) as answer:
            body = b""
            while piece := answer.read1(ANSWER_BYTES_MAX):
                body += piece
                if len(body) > ANSWER_BYTES_MAX:
                    raise NoToken(f"{name} sends more than {ANSWER_BYTES_MAX} bytes")
                if time.monotonic() > until_s:
                    raise NoToken(late)
            if answer.length:
                raise NoToken(f"the answer of {name} ended before its end")
            return body, answer.headers.get("Metadata-Flavor", "")
    except urllib.error.HTTPError as error:
        error.close()
        raise NoToken(f"{name} answers {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError quotes headers
        why = getattr(error, "reason", None) or error
        if isinstance(why, TimeoutError):
            raise NoToken(late) from None
        raise NoToken(f"{name}: {type(error).__name__ if why is error else why}") from None


def _field(answer: bytes, name: str, where: str) -> str:
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        found = None
    value = found.get(name) if isinstance(found, dict) else None
    if not isinstance(value, str):
        raise NoToken(f"{where} gave no {name}")
    return value
