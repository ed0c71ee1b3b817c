"""STS as it answers: signatures checked by botocore, keys of a role, errors with their codes.

The bodies have the elements of real answers (version 2011-06-15).
"""

import contextlib
import datetime as dt
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

from tests.servers.aws_verifier import Keys, WrongSignature, verify
from tests.servers.https import Answer, Asked, Https, https_server

CANARY = "c4n4ry"
KEY_ID, SECRET = "AKIAEXAMPLE000000000", "0perat0r/+Key" + "x" * 27
ROLE = "arn:aws:iam::123456789012:role/reports"
NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
XML = {"Content-Type": "text/xml"}


@dataclass(eq=False)
class Sts:
    """One account with one role. tokens: those that its identity provider knows."""

    known: dict[str, Keys] = field(default_factory=lambda: {KEY_ID: Keys(SECRET)})
    tokens: set[str] = field(default_factory=set)
    trusts: bool = True
    longer_s: int = 0  # than was asked for
    skew_s: float = 0.0  # of its clock
    error: str = ""  # what the next requests get
    raw: bytes | None = None  # in the place of the next bodies
    last: dict[str, str] = field(default_factory=dict)  # the last request's parameters
    https: Https | None = None

    def alive(self, key_id: str) -> bool:
        """Whether the keys are its own: nobody can end them."""
        return key_id in self.known

    def respond(self, asked: Asked) -> Answer:
        """Answer a request."""
        self.last = dict(parse_qsl(asked.body.decode(), keep_blank_values=True))
        if self.raw is not None:
            return Answer(200, self.raw, XML)
        if self.error:
            status = 503 if self.error == "ServiceUnavailable" else 400
            return _refusal(status if self.error != "AccessDenied" else 403, self.error)
        action = self.last.get("Action")
        if self.last.get("Version") != "2011-06-15" or asked.method != "POST":
            return _refusal(400, "InvalidAction")
        if action == "AssumeRoleWithWebIdentity":
            if self.last["WebIdentityToken"] not in self.tokens:
                return _refusal(400, "InvalidIdentityToken")
        else:
            try:
                self._verify(asked)
            except WrongSignature as error:
                unknown = str(error) == "unknown key"
                return _refusal(403, "InvalidClientTokenId" if unknown else "SignatureDoesNotMatch")
        if action == "GetCallerIdentity":
            return _answer(action, "<Arn>arn:aws:iam::123456789012:user/loopwarden</Arn>")
        if not self.trusts or self.last.get("RoleArn") != ROLE:
            return _refusal(403, "AccessDenied")
        return self._assume(str(action))

    def _verify(self, asked: Asked) -> None:
        now = dt.datetime.fromtimestamp(time.time() + self.skew_s, dt.UTC)
        headers = list(asked.headers.items())
        found = verify(asked.method, asked.path, headers, asked.body, self.known, now=now)
        if (found.service, found.region) != ("sts", "eu-west-1"):
            raise WrongSignature("another scope")

    def _assume(self, action: str) -> Answer:
        name, seconds = self.last["RoleSessionName"], int(self.last["DurationSeconds"])
        policy = self.last.get("Policy")
        if policy is not None and "Statement" not in json.loads(policy):
            return _refusal(400, "MalformedPolicyDocument")
        if not 900 <= seconds <= 43_200 or len(name) > 64:
            return _refusal(400, "ValidationError")
        key_id = f"ASIA{CANARY}{secrets.token_hex(5).upper()}"
        keys = Keys(f"{CANARY}/{secrets.token_hex(16)}", f"{CANARY}//{secrets.token_hex(200)}+=")
        self.known[key_id] = keys
        end = dt.datetime.fromtimestamp(time.time() + self.skew_s + seconds + self.longer_s, dt.UTC)
        arn = f"arn:aws:sts::123456789012:assumed-role/reports/{name}"
        return _answer(
            action,
            f"<AssumedRoleUser><AssumedRoleId>AROAX:{name}</AssumedRoleId><Arn>{arn}</Arn>"
            "</AssumedRoleUser><Credentials>"
            f"<AccessKeyId>{key_id}</AccessKeyId><SecretAccessKey>{keys.secret}</SecretAccessKey>"
            f"<SessionToken>{keys.token}</SessionToken>"
            f"<Expiration>{end:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials>"
            "<PackedPolicySize>6</PackedPolicySize>",
        )


def role_answer(sts: Sts) -> bytes:
    """Return the body of an answer with keys."""
    sts.last = {"RoleSessionName": "a-run", "DurationSeconds": "900"}
    content = sts._assume("AssumeRole").content
    assert isinstance(content, bytes)
    return content


def _answer(action: str, result: str) -> Answer:
    text = (
        f'<{action}Response xmlns="{NAMESPACE}">\n  <{action}Result>{result}</{action}Result>\n'
        "  <ResponseMetadata><RequestId>c6104cbe-af31-11e0-8154-cbc7ccf896c7</RequestId>"
        f"</ResponseMetadata>\n</{action}Response>"
    )
    return Answer(200, text.encode(), XML)


def _refusal(status: int, code: str) -> Answer:
    text = (
        f'<ErrorResponse xmlns="{NAMESPACE}"><Error><Type>Sender</Type><Code>{code}</Code>'
        f"<Message>User: {CANARY} is not authorized</Message></Error>"
        "<RequestId>c6104cbe-af31-11e0-8154-cbc7ccf896c7</RequestId></ErrorResponse>"
    )
    return Answer(status, text.encode(), XML)


@contextlib.contextmanager
def sts_server(folder: Path) -> Iterator[Sts]:
    """Run one until the test is done."""
    sts = Sts()
    with https_server(sts.respond, folder) as https:
        sts.https = https
        yield sts
