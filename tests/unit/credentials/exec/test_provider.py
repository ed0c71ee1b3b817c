"""The exec provider with real programs: the suite, the forms, and what they may not print."""

import base64
import json
from collections.abc import Iterator

import pytest

from agent.broker.sources import BrokerClient
from agent.credentials.exec import SPEC
from agent.credentials.exec.printed import OWN_HANDLE_CHARACTERS_MAX, Printed, read_printed
from agent.credentials.spec import CredentialError, Issued, Wanted
from agent.model.credential import AwsKeys, Shape, secrets_of
from agent.model.secret import Secret
from tests.conformance.provider_suite import NOW_MS, Case, check_all, wanted
from tests.servers.programs import Folder, folder, keeper
from tests.unit.broker.harness import run_async

CANARY = "c4n4ry"
PEM = f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----"
MAKE = """cd {scratch} && echo alive > $LOOPWARDEN_LEASE
cat <<END
{{"token": "{canary}-$LOOPWARDEN_LEASE", "user": "robot", "password": "{canary}-$LOOPWARDEN_LEASE",
 "certificate": "-----BEGIN CERTIFICATE-----", "key": "{pem}",
 "access_key_id": "{canary}-$LOOPWARDEN_LEASE", "secret_access_key": "{canary}",
 "session_token": "{canary}", "expires_in": 3600, "handle": "h $LOOPWARDEN_RUN"}}
END"""
END = """cd {scratch} && rm -f $LOOPWARDEN_LEASE
echo "$LOOPWARDEN_ACTION $LOOPWARDEN_HANDLE" >> ended"""


class Stage:
    """Two programs that make and end credentials: a file each."""

    def __init__(self, place: Folder, client: BrokerClient) -> None:
        self.place, self.client = place, client
        pem = PEM.replace("\n", "\\n")
        make = MAKE.format(scratch=place.scratch, canary=CANARY, pem=pem)
        self.good = {
            "command": json.dumps([place.program("make", make)]),
            "revoke_command": json.dumps([place.program("end", END.format(scratch=place.scratch))]),
        }

    def case(self) -> Case:
        """For the suite."""
        relative = {"command": '["make"]'}
        bad: tuple[dict[str, str], ...] = (
            {},
            relative,
            self.good | {"command": '["/nonexistent/x"]'},
            self.good | {"x": "y"},
        )
        return Case(SPEC, self.client, self.good, bad, CANARY.encode(), self.alive)

    def alive(self, issued: Issued) -> bool:
        """Whether its file is there."""
        text = secrets_of(issued.credential)[0].reveal().decode()
        name = text.rpartition("-")[2]
        if text == PEM:  # it has no name
            return any(self.place.scratch.iterdir())
        return (self.place.scratch / name).exists()


@pytest.fixture(name="stage")
def _stage() -> Iterator[Stage]:
    with folder() as place, keeper() as programs:
        yield Stage(place, BrokerClient({}, {}, programs=programs))


def test_the_suite(stage: Stage) -> None:
    """It passes what every provider must, in every shape."""
    run_async(check_all(stage.case()))


def test_the_handle_comes_back(stage: Stage) -> None:
    """What the program printed is told to the one that ends it."""
    asked, provider = wanted(stage.case(), Shape.BEARER, stage.good), SPEC.make()
    issued = run_async(provider.issue(asked, stage.client, NOW_MS))
    assert issued.handle == f"until {NOW_MS + 3_600_000} h 01JD0000000000000000000001"
    run_async(provider.revoke(asked, issued.handle, stage.client))
    ended = (stage.place.scratch / "ended").read_text()
    assert ended == "revoke h 01JD0000000000000000000001\n"


def test_without_revoke_command_it_is_labelled(stage: Stage) -> None:
    """It can only expire; one whose answer was lost, after `longest`; a run that never was, not."""
    del stage.good["revoke_command"]
    asked, provider = wanted(stage.case(), Shape.BEARER, stage.good), SPEC.make()
    issued = run_async(provider.issue(asked, stage.client, NOW_MS))
    assert not issued.revocable
    with pytest.raises(CredentialError) as caught:
        run_async(provider.revoke(asked, issued.handle, stage.client))
    assert caught.value.ends_ms == NOW_MS + 3_600_000
    run_async(provider.revoke(asked, "", stage.client))


def test_a_program_that_fails_to_end_it_is_run_again(stage: Stage) -> None:
    """The lease stays until it ends with 0."""
    asked, provider = wanted(stage.case(), Shape.BEARER, stage.good), SPEC.make()
    issued = run_async(provider.issue(asked, stage.client, NOW_MS))
    stage.place.program("end", "echo c4n4ry; exit 1")
    with pytest.raises(CredentialError, match="status 1") as caught:
        run_async(provider.revoke(asked, issued.handle, stage.client))
    assert CANARY not in str(caught.value)
    stage.place.program("end", END.format(scratch=stage.place.scratch))
    run_async(provider.revoke(asked, issued.handle, stage.client))
    assert not stage.alive(issued)


def test_without_a_user_nothing_is_run(stage: Stage) -> None:
    """The error says what to do."""
    asked = wanted(stage.case(), Shape.BEARER, stage.good)
    with pytest.raises(CredentialError, match="systemd-sysusers") as caught:
        run_async(SPEC.make().issue(asked, BrokerClient({}, {}), NOW_MS))
    assert caught.value.nothing_made


def test_exec_credential() -> None:
    """Kubernetes' form, with a token and with a certificate."""
    status = {
        "token": CANARY,
        "expirationTimestamp": "2027-01-15T09:00:00Z",
        "clientCertificateData": "-----BEGIN CERTIFICATE-----",
        "clientKeyData": PEM,
    }
    text = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    for shape in (Shape.BEARER, Shape.CLIENT_CERTIFICATE):
        printed = _read(text | {"status": status}, shape)
        assert printed.end_ms == 1_800_003_600_000
        assert CANARY not in repr(printed)


def test_credential_process() -> None:
    """AWS' form: temporary keys, and long-lived ones without a token."""
    text = {"Version": 1, "AccessKeyId": "AKIA", "SecretAccessKey": CANARY}
    temporary = {"SessionToken": "t", "Expiration": "2027-01-15T09:00:00Z"}
    for found, token, end_ms in (
        (text | temporary, b"t", 1_800_003_600_000),
        (text, None, 0),
    ):
        printed = _read(found, Shape.AWS_KEYS)
        assert printed.end_ms == end_ms
        keys = printed.credential
        assert isinstance(keys, AwsKeys)
        assert keys.access_key_id.reveal() == b"AKIA"
        assert keys.secret_access_key.reveal() == CANARY.encode()
        shown = None if keys.session_token is None else keys.session_token.reveal()
        assert shown == token
    for wrong in ({"AccessKeyId": "a\nb"}, {"SecretAccessKey": ""}, {"More": 1}, {"Version": 2}):
        with pytest.raises(CredentialError):
            _read(text | wrong, Shape.AWS_KEYS)


@pytest.mark.parametrize(
    "found",
    [
        [],
        "x",
        {},
        {"token": ""},
        {"token": "a\nb"},
        {"token": 1},
        {"token": CANARY, "more": 1},
        {"token": CANARY, "expires_in": 0},
        {"token": CANARY, "expires_in": "1"},
        {"token": CANARY, "expires_at": "soon"},
        {"token": CANARY, "expires_at": "2027-01-15T09:00:00"},
        {"token": CANARY, "handle": f"x{CANARY}"},
        {"token": CANARY, "handle": CANARY[:4]},
        {"token": CANARY, "handle": "x" * (OWN_HANDLE_CHARACTERS_MAX + 1)},
        {"token": CANARY, "handle": "a\nb"},
        {"kind": "ExecCredential", "status": None},
        {"Version": 2, "AccessKeyId": "a", "SecretAccessKey": CANARY},
    ],
)
def test_what_is_no_credential(found: object) -> None:
    """Refused, without what was printed."""
    with pytest.raises(CredentialError) as caught:
        _read(found, Shape.BEARER)
    assert CANARY not in str(caught.value)


def test_the_longest_handle() -> None:
    """It is kept."""
    printed = _read({"token": CANARY, "handle": "x" * OWN_HANDLE_CHARACTERS_MAX}, Shape.BEARER)
    assert len(printed.handle) == OWN_HANDLE_CHARACTERS_MAX
    assert printed.end_ms == 0
    with pytest.raises(CredentialError):
        read_printed(Secret(base64.b64decode("/w==")), _asked(Shape.BEARER), NOW_MS)


def _asked(shape: Shape) -> Wanted:
    case = Case(SPEC, BrokerClient({}, {}), {}, (), b"", lambda _: True)
    return wanted(case, shape, {})


def _read(found: object, shape: Shape) -> Printed:
    return read_printed(Secret(json.dumps(found).encode()), _asked(shape), NOW_MS)
