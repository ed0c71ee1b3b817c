"""The `kubernetes` provider: TokenRequest, bound to a Secret that is made for it and deleted.

The Secret is empty. A token that is bound to an object is refused once that object is gone, so
deleting it revokes the token, and its name follows from the lease's id: nothing is lost by a
crash. (An API server remembers a token that it took for some seconds more: 10 by default.)
"""

import contextlib
from collections.abc import Iterator

from agent.credentials.kubernetes.api import (
    WHO,
    ClusterSettings,
    ask,
    object_name,
    read_settings,
    refused,
)
from agent.credentials.replies import here_ms, moment_ms, object_of, text_of, token_of
from agent.credentials.spec import Client, CredentialError, HttpReply, Issued, Wanted
from agent.model.credential import Bearer

TTL_S, TTL_S_MIN = 3_600, 600  # when the target says nothing; and what Kubernetes gives at least
TTL_S_MAX = 1 << 32
NOW = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}


class KubernetesProvider:
    """It has no state; what it made is found by name."""

    async def issue(self, wanted: Wanted, client: Client, now_ms: int) -> Issued:
        """Make the Secret, then a token that is bound to it.

        Raises:
            CredentialError: there is no token.
        """
        settings, name = read_settings(wanted.settings), object_name(wanted)
        uid = await _make_secret(settings, wanted, client)
        spec = {
            "audiences": list(settings.audiences),
            "expirationSeconds": _ttl_s(wanted),
            "boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": name, "uid": uid},
        }
        request = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec}
        with _secret_is_there():
            reply = await ask(settings, "POST", settings.token, request, client)
            if reply.status != 201:
                raise refused(reply)
        found = object_of(reply, WHO)
        status, said = found.get("status"), found.get("spec")
        if not isinstance(status, dict) or not isinstance(said, dict):
            raise CredentialError(f"{WHO} answers no TokenRequest")
        bound = said.get("boundObjectRef")
        if not isinstance(bound, dict) or bound.get("uid") != uid:
            raise CredentialError(f"{WHO} gives a token that is bound to nothing of ours")
        token = token_of(status, "token", WHO)
        end_ms = here_ms(moment_ms(text_of(status, "expirationTimestamp"), WHO), reply, now_ms)
        if wanted.ttl_s:
            end_ms = min(end_ms, now_ms + 1000 * wanted.ttl_s)  # it is revoked then
        place = f"{settings.namespace}/{name}"
        return Issued(
            Bearer(token), name, end_ms, renewable=False, revocable=True, provider_id=place
        )

    async def renew(self, wanted: Wanted, handle: str, client: Client, now_ms: int) -> Issued:
        """Refuse: a token's life is fixed, and another one is asked for before its end.

        Raises:
            CredentialError: always.
        """
        raise CredentialError(f"a service account's token of {wanted.target} is not renewable")

    async def revoke(self, wanted: Wanted, handle: str, client: Client) -> None:
        """Delete the Secret; the token dies with it.

        Raises:
            CredentialError: it may still be there.
        """
        settings = read_settings(wanted.settings)
        path = f"{settings.secrets}/{object_name(wanted)}"
        reply = await ask(settings, "DELETE", path, NOW, client)
        if not _is_gone(reply) and reply.status not in {200, 202}:
            raise refused(reply)

    async def confirm(self, wanted: Wanted, handle: str, client: Client) -> bool:
        """Try what deleting it again would do: so we need no right to read Secrets.

        Raises:
            CredentialError: the server does not say.
        """
        settings = read_settings(wanted.settings)
        path = f"{settings.secrets}/{object_name(wanted)}?dryRun=All"
        reply = await ask(settings, "DELETE", path, NOW | {"dryRun": ["All"]}, client)
        if not _is_gone(reply) and reply.status not in {200, 202}:
            raise refused(reply)
        return _is_gone(reply)

    async def probe(self, wanted: Wanted, client: Client) -> None:
        """Ask whether we may do all three things.

        Raises:
            CredentialError: we may not, or the server does not answer.
        """
        settings = read_settings(wanted.settings)
        for verb, resource, more in (
            ("create", "secrets", {}),
            ("delete", "secrets", {}),
            (
                "create",
                "serviceaccounts",
                {"subresource": "token", "name": settings.service_account},
            ),
        ):
            attributes = {"namespace": settings.namespace, "verb": verb, "resource": resource}
            review = {
                "kind": "SelfSubjectAccessReview",
                "apiVersion": "authorization.k8s.io/v1",
                "spec": {"resourceAttributes": attributes | more},
            }
            path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
            reply = await ask(settings, "POST", path, review, client)
            if reply.status != 201:
                raise refused(reply)
            status = object_of(reply, WHO).get("status")
            if not isinstance(status, dict) or status.get("allowed") is not True:
                what = "/".join([resource, *(["token"] if more else [])])
                text = f"our own account may not {verb} {what} in {settings.namespace}"
                raise CredentialError(text, nothing_made=True)


async def _make_secret(settings: ClusterSettings, wanted: Wanted, client: Client) -> str:
    """Return its uid. One that is there is of an attempt of this lease: it is made anew."""
    name = object_name(wanted)
    content = {
        "kind": "Secret",
        "apiVersion": "v1",
        "type": "Opaque",
        "immutable": True,
        "metadata": {
            "name": name,
            "labels": {
                "app.kubernetes.io/managed-by": "loopwarden",
                "loopwarden/host": client.host,
            },
            "annotations": {
                "loopwarden/run": wanted.run_id,
                "loopwarden/loop": wanted.loop,
                "loopwarden/target": wanted.target,
            },
        },
    }
    wanted.keep(name)
    reply = await ask(settings, "POST", settings.secrets, content, client)
    if reply.status == 409:
        with _secret_is_there():
            await ask(settings, "DELETE", f"{settings.secrets}/{name}", NOW, client)
            reply = await ask(settings, "POST", settings.secrets, content, client)
            if reply.status != 201:
                raise refused(reply)
    if reply.status != 201:
        raise refused(reply)
    metadata = object_of(reply, WHO).get("metadata")
    uid = text_of(metadata, "uid") if isinstance(metadata, dict) else ""
    if not uid:
        raise CredentialError(f"{WHO} answers no Secret")
    return uid


@contextlib.contextmanager
def _secret_is_there() -> Iterator[None]:
    """Whatever fails inside, even before a request: the Secret is to be deleted."""
    try:
        yield
    except CredentialError as error:
        error.nothing_made = False
        raise


def _is_gone(reply: HttpReply) -> bool:
    """A 404 of the API server itself; one of a proxy before it says nothing of the Secret."""
    if reply.status != 404:
        return False
    found = object_of(reply, WHO)
    return found.get("kind") == "Status" and found.get("reason") == "NotFound"


def _ttl_s(wanted: Wanted) -> int:
    asked = min(wanted.ttl_s or TTL_S, wanted.max_ttl_s or TTL_S_MAX)
    return max(TTL_S_MIN, min(asked, TTL_S_MAX))
