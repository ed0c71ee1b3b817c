"""The aws_sts provider against a server that checks its signatures, over real HTTPS."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from agent.broker.sources import BrokerClient
from agent.credentials.aws_sts import SPEC
from agent.credentials.aws_sts.answers import DEPTH_MAX, ELEMENTS_MAX, leaves_of
from agent.credentials.aws_sts.calls import SESSION_NAME_CHARACTERS_MAX, session_name
from agent.credentials.spec import CredentialError, HttpReply, Issued, RunToken, Wanted
from agent.model.credential import AwsKeys, Shape
from agent.model.ids import LoopName
from agent.model.secret import Secret
from tests.conformance.provider_suite import NOW_MS, Case, check_all, wanted
from tests.servers.sts import CANARY, KEY_ID, ROLE, SECRET, Sts, sts_server
from tests.unit.broker.harness import run_async

HOUR_MS = 3_600_000
BORN_MS = 1_731_945_562_112  # of the suite's lease id
TOKEN = "eyJhbGciOiJSUzI1NiJ9.e30.AAAA"


class Stage:
    """A role, and a target that takes its keys."""

    def __init__(self, folder: Path, sts: Sts) -> None:
        self.folder, self.sts = folder, sts
        self.client = BrokerClient({}, {})
        assert sts.https is not None
        self.https = sts.https
        self.good = {
            "role_arn": ROLE,
            "region": "eu-west-1",
            "endpoint": self.https.url,
            "ca": self.https.ca,
            "access_key_id": KEY_ID,
            "file": self.secret("key", SECRET),
            "session_policy": '{"Version": "2012-10-17", "Statement": [{"Effect": "Deny"}]}',
        }

    def secret(self, name: str, text: str) -> str:
        """Write a file that the broker alone reads; return its path."""
        path = self.folder / name
        path.touch(0o600)
        path.write_text(text + "\n", encoding="ascii")
        return str(path)

    @property
    def by_token(self) -> dict[str, str]:
        """Settings with a token file."""
        self.sts.tokens.add(TOKEN)
        rest = {key: self.good[key] for key in ("role_arn", "region", "endpoint", "ca")}
        return rest | {"token_file": self.secret("token", TOKEN)}

    def case(self, good: dict[str, str]) -> Case:
        """For the suite."""
        bad: tuple[dict[str, str], ...] = (
            {},
            self.good | {"file": self.secret("wrong", "x" * 40)},
            self.good | {"file": self.secret("short", "x")},
            self.good | {"file": "/nonexistent"},
            self.good | {"access_key_id": "AKIAUNKNOWN000000000"},
            self.good | {"endpoint": "https://127.0.0.1:1"},
            self.good | {"region": "us-east-1"},
            self.by_token | {"token_file": "/nonexistent"},
            self.by_token | {"token_file": self.secret("spaced", "no token")},
            {key: value for key, value in self.good.items() if key != "ca"},
        )
        return Case(SPEC, self.client, good, bad, CANARY.encode(), self.alive)

    def asked(self, **changes: str) -> Wanted:
        """Return a request."""
        return wanted(self.case(self.good), Shape.AWS_KEYS, self.good | changes)

    def issue(self, asked: Wanted) -> Issued:
        """Issue one."""
        return run_async(SPEC.make().issue(asked, self.client, NOW_MS))

    def alive(self, issued: Issued) -> bool:
        """Whether AWS takes the keys."""
        assert isinstance(issued.credential, AwsKeys)
        return self.sts.alive(issued.credential.access_key_id.reveal().decode())


@pytest.fixture(name="stage")
def _stage(tmp_path: Path) -> Iterator[Stage]:
    with sts_server(tmp_path) as sts:
        yield Stage(tmp_path, sts)


@pytest.mark.parametrize("by_token", [False, True])
def test_the_suite(stage: Stage, by_token: bool) -> None:
    """It passes what every provider must, with keys and with an identity token."""
    good = stage.by_token if by_token else stage.good
    run_async(check_all(stage.case(good)))


def test_it_is_narrowed_and_named(stage: Stage) -> None:
    """Session policy, ARNs, tags and source identity arrive; CloudTrail's name is the run's."""
    arns = ("arn:aws:iam::aws:policy/A", "arn:aws:iam::123456789012:policy/b/C")
    asked = stage.asked(
        policy_arns=f'["{arns[0]}", "{arns[1]}"]',
        session_tags='["team=a", "cost=b=c"]',
        source_identity="loopwarden",
        external_id="x:1",
        duration="1800",
    )
    issued = stage.issue(asked)
    last = stage.sts.last
    assert last["Policy"] == '{"Version":"2012-10-17","Statement":[{"Effect":"Deny"}]}'
    assert [last[f"PolicyArns.member.{number}.arn"] for number in (1, 2)] == list(arns)
    assert (last["Tags.member.2.Key"], last["Tags.member.2.Value"]) == ("cost", "b=c")
    assert (last["SourceIdentity"], last["ExternalId"]) == ("loopwarden", "x:1")
    assert last["RoleSessionName"] == f"{asked.run_id}-nightly"
    assert issued.provider_id.endswith(f"/{asked.run_id}-nightly")
    assert not issued.revocable
    assert not issued.renewable
    assert abs(issued.expires_ms - NOW_MS - HOUR_MS / 2) < 30_000
    long = replace(asked, loop=LoopName("a b/ü" * 20))
    assert len(session_name(long)) == SESSION_NAME_CHARACTERS_MAX
    assert session_name(long).startswith(f"{asked.run_id}-a-b--a-b-")


@pytest.mark.parametrize(
    ("ttl_s", "max_ttl_s", "seconds"),
    [(0, 0, 3_600), (1_200, 0, 1_200), (1_200, 1_000, 1_000), (60, 0, 900), (7_200, 0, 3_600)],
)
def test_how_long_they_live(stage: Stage, ttl_s: int, max_ttl_s: int, seconds: int) -> None:
    """As short as the target says, and STS gives: 15 minutes at least."""
    issued = stage.issue(replace(stage.asked(), ttl_s=ttl_s, max_ttl_s=max_ttl_s))
    assert stage.sts.last["DurationSeconds"] == str(seconds)
    assert abs(issued.expires_ms - NOW_MS - 1_000 * seconds) < 30_000


def test_the_server_s_clock_counts(stage: Stage) -> None:
    """One that is ahead by minutes does not make the lease longer; a clock too far off is named."""
    stage.sts.skew_s = 240  # its Date field is the host's own here: what is left is too long
    with pytest.raises(CredentialError, match="longer than was asked for") as caught:
        stage.issue(stage.asked())
    assert not caught.value.nothing_made
    stage.sts.skew_s = -1_000
    with pytest.raises(CredentialError, match="clock") as caught:
        stage.issue(stage.asked())
    assert caught.value.nothing_made


def test_what_is_lost_is_waited_for(stage: Stage) -> None:
    """A crash, or an answer that was cut off: it ends by itself, and is never shown as revoked."""
    issued = stage.issue(stage.asked())
    with pytest.raises(CredentialError, match="can't be revoked") as caught:
        run_async(SPEC.make().revoke(stage.asked(), issued.handle, stage.client))
    assert caught.value.ends_ms == issued.expires_ms
    handles: list[str] = []
    asked = replace(stage.asked(), keep=handles.append)
    stage.https.faults = {"/": ["lost"]}
    with pytest.raises(CredentialError) as caught:
        stage.issue(asked)
    assert not caught.value.nothing_made
    with pytest.raises(CredentialError) as caught:
        run_async(SPEC.make().revoke(asked, handles[-1], stage.client))
    assert caught.value.ends_ms == BORN_MS + HOUR_MS + 60_000


def test_nothing_is_kept_when_nothing_was_asked(stage: Stage) -> None:
    """A secret that can't be read leaves no lease to wait for."""
    handles: list[str] = []
    asked = replace(stage.asked(file="/nonexistent"), keep=handles.append)
    with pytest.raises(CredentialError):
        stage.issue(asked)
    assert not handles
    run_async(SPEC.make().revoke(asked, "", stage.client))


def test_the_run_s_own_token(stage: Stage) -> None:
    """It is shown as it is; a run without one, or with one that has expired, gets nothing."""
    settings = {key: stage.good[key] for key in ("role_arn", "region", "endpoint", "ca")}
    asked = replace(stage.asked(), settings=settings | {"web_identity": "run"})
    stage.sts.tokens.add("its.own.token")
    shown = RunToken("repo:a", Secret(b"its.own.token"), NOW_MS + 60_000)
    assert stage.alive(stage.issue(replace(asked, run_token=shown)))
    assert stage.sts.last["WebIdentityToken"] == "its.own.token"
    assert "authorization" not in stage.https.asked[-1].headers
    count = len(stage.https.asked)
    for wrong in (None, RunToken("repo:a", None), replace(shown, ends_ms=NOW_MS)):
        with pytest.raises(CredentialError) as caught:
            stage.issue(replace(asked, run_token=wrong))
        assert caught.value.nothing_made
    run_async(SPEC.make().probe(asked, stage.client))
    assert len(stage.https.asked) == count


@pytest.mark.parametrize("fault", ["html", "nonsense", "500", "503", "302", "cut", "lost"])
def test_faults(stage: Stage, fault: str) -> None:
    """What is wrong with an answer is said, by issue and by probe."""
    stage.https.faults = {"/": [fault] * 2}
    with pytest.raises(CredentialError) as caught:
        stage.issue(stage.asked())
    assert caught.value.nothing_made == (fault == "302")
    assert caught.value.transient == (fault in {"500", "503", "cut", "lost"})
    with pytest.raises(CredentialError):
        run_async(SPEC.make().probe(stage.asked(), stage.client))


@pytest.mark.parametrize(
    ("code", "said", "transient"),
    [
        ("AccessDenied", "trust policy", False),
        ("PackedPolicyTooLarge", "too much together", False),
        ("ExpiredToken", "have expired", False),
        ("RegionDisabledException", "not activated", False),
        ("Throttling", "STS answers 400", True),
        ("IDPCommunicationError", "STS answers 400", True),
        ("ServiceUnavailable", "STS answers 503", True),
        (f"{CANARY}<x/>", "STS answers 400", False),
    ],
)
def test_errors_say_what_to_do(stage: Stage, code: str, said: str, transient: bool) -> None:
    """A code of STS that we know, with the next step; its text is quoted nowhere."""
    stage.sts.error = code
    with pytest.raises(CredentialError, match=said) as caught:
        stage.issue(stage.asked())
    assert caught.value.transient is transient
    assert CANARY not in str(caught.value)


BOMB = (
    b'<!DOCTYPE lolz [<!ENTITY a "c4n4ry"><!ENTITY b "&a;&a;">]><R><AccessKeyId>&b;</AccessKeyId>'
    b"</R>"
)
NOT_XML = [
    b"",
    b"<R>",
    b"<R></S>",
    b"<R>&amp;#0;</R",
    b"\xff\xfe<R/>",
    BOMB,
    b'<!DOCTYPE r SYSTEM "file:///etc/passwd"><R/>',
    b"<?php x ?><R/>",
    b"<R><A>1</A><A>2</A></R>",
    b"<A>" * DEPTH_MAX + b"<B/>" + b"</A>" * DEPTH_MAX,
    b"<R>" + b"".join(b"<a%d/>" % number for number in range(ELEMENTS_MAX)) + b"</R>",
]


@pytest.mark.parametrize("body", NOT_XML)
def test_what_is_no_answer(stage: Stage, body: bytes) -> None:
    """No document type, no entity, nothing twice, and bounds: refused, and nothing is expanded."""
    with pytest.raises(CredentialError, match="without its XML"):
        leaves_of(HttpReply(200, (), Secret(body), 0))
    stage.sts.raw = body
    with pytest.raises(CredentialError):
        stage.issue(stage.asked())


def test_as_deep_and_as_many_as_may_be() -> None:
    """DEPTH_MAX and ELEMENTS_MAX are read; white space and prefixes do not matter."""
    deep = b"<a>" * (DEPTH_MAX - 1) + b"<s:B> 1 </s:B>" + b"</a>" * (DEPTH_MAX - 1)
    assert leaves_of(HttpReply(200, (), Secret(deep), 0)) == {"B": "1"}
    many = b"".join(b"<a%d/>" % number for number in range(ELEMENTS_MAX - 1))
    assert len(leaves_of(HttpReply(200, (), Secret(b"<R>" + many + b"</R>"), 0))) == 255


@pytest.mark.parametrize("missing", ["AccessKeyId", "SecretAccessKey", "SessionToken"])
def test_an_answer_without_all_keys(stage: Stage, missing: str) -> None:
    """It is no credential."""
    names = ("AccessKeyId", "SecretAccessKey", "SessionToken")
    text = "".join(f"<{name}>{CANARY}</{name}>" for name in names if name != missing)
    stage.sts.raw = f"<R>{text}<Expiration>2030-01-01T00:00:00Z</Expiration></R>".encode()
    with pytest.raises(CredentialError, match=missing):
        stage.issue(stage.asked())


def test_an_endpoint_on_a_usual_port(stage: Stage) -> None:
    """The Host that is signed is the one that is sent: the port is said unless it is usual."""
    port = urlsplit(stage.https.url).port
    stage.issue(stage.asked(endpoint=f"https://127.0.0.1:{port}/"))
    assert stage.https.asked[-1].headers["host"] == f"127.0.0.1:{port}"
