"""Asks an issuer over verified TLS: a GET, an answer 200, bounded; no redirection is followed."""

from agent.broker.http_client import Http
from agent.broker.identity.issuers import Fetch, FetchFailed
from agent.credentials.spec import CredentialError, HttpRequest

BODY_BYTES_MAX = 256 << 10  # the field's largest sets of keys, with certificates, have 20 KiB
REQUEST_S = 5.0


def fetch_over(http: Http) -> Fetch:
    """Return what fetches a URL, trusting the CA of a file ("": the system's roots)."""

    async def fetch(url: str, ca: str) -> bytes:
        request = HttpRequest("GET", url, {"Accept": "application/json"}, ca=ca, within_s=REQUEST_S)
        try:
            reply = await http.request(request, BODY_BYTES_MAX)
        except CredentialError as error:
            raise FetchFailed(str(error)) from None
        if reply.status != 200:
            raise FetchFailed(f"{url} answers {reply.status}")
        return reply.body.reveal()

    return fetch
