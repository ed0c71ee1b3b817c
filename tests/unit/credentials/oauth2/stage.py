"""An authorisation server, and the targets that use it."""

from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from agent.broker.sources import BrokerClient
from agent.credentials.oauth2 import SPEC
from agent.credentials.spec import Issued, Wanted
from agent.model.credential import Bearer, Shape
from agent.model.ids import LeaseId, LoopName, RunId, TargetName
from tests.servers.https import private_key_pem
from tests.servers.oauth import CANARY, CLIENT, CLIENT_SECRET, OAuth
from tests.unit.broker.harness import run_async

NOW_MS = 1_800_000_000_000
LEASE = LeaseId("01JD0000000000000000000000")


class Stage:
    """Settings that work, for each grant and way of saying who we are."""

    def __init__(self, folder: Path, server: OAuth, key: ec.EllipticCurvePrivateKey) -> None:
        self.folder, self.server = folder, server
        self.state = folder / "remembered"
        self.client = self.fresh()
        private_key_pem(key, folder / "key.pem")
        self.write("secret", CLIENT_SECRET + "\n")
        self.write("refresh", server.refresh)
        self.write("subject", server.subject)

    def fresh(self) -> BrokerClient:
        """Return a client as it is after a restart: nothing in memory, the disk as it was."""
        return BrokerClient({}, {}, remembered=self.state)

    def write(self, name: str, text: str) -> str:
        """Write a secret file."""
        path = self.folder / name
        path.touch(0o600)
        path.write_text(text, encoding="utf-8")
        return str(path)

    def path(self, name: str) -> str:
        """Return where a file is."""
        return str(self.folder / name)

    def settings(self, grant: str = "client_credentials", auth: str = "basic") -> dict[str, str]:
        """Return a target's settings."""
        assert self.server.https is not None
        url = self.server.url
        found = {
            "token_url": f"{url}/token",
            "revoke_url": f"{url}/revoke",
            "introspect_url": f"{url}/introspect",
            "ca": self.server.https.ca,
            "grant": grant,
            "client_auth": auth,
            "client_id": CLIENT,
            "file": self.path("secret"),
        }
        if auth == "private_key_jwt" or grant == "jwt_bearer":
            found |= {
                "file": self.path("key.pem"),
                "algorithm": "ES256",
                "assertion_audience": f"{url}/token",
                "key_id": "k1",
            }
        if auth == "none":
            found["client_id"] = "public"
        match grant:
            case "refresh_token":
                found["refresh_token_file"] = self.path("refresh")
            case "token_exchange":
                found["subject_token_file"] = self.path("subject")
            case "jwt_bearer":
                found |= {"issuer": "issuer", "subject": "user@example"}
        return found

    def issue(self, settings: Mapping[str, str], lease: LeaseId = LEASE, ttl_s: int = 0) -> Issued:
        """Issue one."""
        asked = wanted(settings, lease, ttl_s)
        return run_async(SPEC.make().issue(asked, self.client, NOW_MS))

    def alive(self, issued: Issued) -> bool:
        """Whether the server takes it now."""
        return self.server.alive(token_of(issued))


def wanted(settings: Mapping[str, str], lease: LeaseId = LEASE, ttl_s: int = 0) -> Wanted:
    """Return a request as the broker makes it."""
    return Wanted(
        lease, RunId("01JD0000000000000000000001"), LoopName("nightly"), TargetName("api"),
        settings, Shape.BEARER, "", "", ttl_s,
    )  # fmt: skip


def token_of(issued: Issued) -> str:
    """Return what it opens with."""
    assert isinstance(issued.credential, Bearer)
    token = issued.credential.token.reveal().decode()
    assert token.startswith(CANARY)
    return token
