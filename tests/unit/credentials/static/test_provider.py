"""The static provider: the conformance suite on each of its sources, and its own rules."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.broker.sources import BrokerClient
from agent.credentials.spec import SECRET_BYTES_MAX, CredentialError
from agent.credentials.static import SPEC
from agent.model.credential import Basic, Shape, secrets_of
from agent.model.secret import Secret
from tests.conformance.provider_suite import Case, check_all, wanted

CANARY = b"c4n4ry"
BAD: tuple[dict[str, str], ...] = (
    {"file": "/nonexistent/x"},
    {"file": "/etc/passwd"},
    {"environment": "LW_NO_SUCH"},
    {"environment": "LW_EMPTY"},
    {"systemd_credential": "none"},
    {},
    {"file": "/x", "environment": "Y"},
)


def _client() -> BrokerClient:
    environment = {
        "LW_TOKEN": "c4n4ry-env",
        "LW_EMPTY": "\n",
        "LW_BIG": "c" * (SECRET_BYTES_MAX + 1),
    }
    return BrokerClient({"token": Secret(b"c4n4ry-systemd\n")}, environment)


def _file(path: Path) -> dict[str, str]:
    path = path / "token"
    path.write_bytes(CANARY + b"-file\n")
    path.chmod(0o400)
    return {"file": str(path)}


@pytest.mark.parametrize(
    "settings",
    [_file, lambda _: {"environment": "LW_TOKEN"}, lambda _: {"systemd_credential": "token"}],
)
def test_the_suite(tmp_path: Path, settings: Callable[[Path], dict[str, str]]) -> None:
    """Every source passes what every provider must."""
    case = Case(SPEC, _client(), settings(tmp_path), BAD, CANARY, lambda _: True)
    asyncio.run(check_all(case))


@pytest.mark.parametrize(
    ("written", "value"),
    [(b"a\n", b"a"), (b"a\r\n", b"a"), (b"a", b"a"), (b"a\n\n", b"a\n"), (b" a ", b" a ")],
)
def test_one_line_end_is_not_of_the_secret(tmp_path: Path, written: bytes, value: bytes) -> None:
    """One, and nothing else (a password may end in spaces)."""
    path = tmp_path / "s"
    path.write_bytes(written)
    path.chmod(0o600)
    asked = wanted(_case(), Shape.BASIC, {"file": str(path)})
    issued = asyncio.run(SPEC.make().issue(asked, _client(), 0))
    assert isinstance(issued.credential, Basic)
    assert issued.credential.user == "robot"
    assert secrets_of(issued.credential)[0].reveal() == value


@pytest.mark.parametrize("value", [b" a", b"a ", b"a\nb", b"a\x00b", b"\x7f", b"caf\xc3\xa9"])
@pytest.mark.parametrize("shape", [Shape.BEARER, Shape.HEADER])
def test_what_no_field_may_carry_is_refused(tmp_path: Path, value: bytes, shape: Shape) -> None:
    """A secret can't break out of its field (RFC 9110 section 5.5)."""
    path = tmp_path / "s"
    path.write_bytes(value)
    path.chmod(0o600)
    with pytest.raises(CredentialError, match="no HTTP field may"):
        asyncio.run(SPEC.make().issue(wanted(_case(), shape, {"file": str(path)}), _client(), 0))


def test_size_is_bounded(tmp_path: Path) -> None:
    """At the limit it is issued, one byte more is refused, from a file and from the environment."""
    path = tmp_path / "s"
    path.touch(0o600)
    asked = wanted(_case(), Shape.BEARER, {"file": str(path)})
    path.write_bytes(b"c" * SECRET_BYTES_MAX)
    asyncio.run(SPEC.make().issue(asked, _client(), 0))
    path.write_bytes(b"c" * (SECRET_BYTES_MAX + 1))
    with pytest.raises(CredentialError, match=str(SECRET_BYTES_MAX)):
        asyncio.run(SPEC.make().issue(asked, _client(), 0))
    big = wanted(_case(), Shape.BEARER, {"environment": "LW_BIG"})
    with pytest.raises(CredentialError, match=str(SECRET_BYTES_MAX)):
        asyncio.run(SPEC.make().issue(big, _client(), 0))


def _case() -> Case:
    return Case(SPEC, _client(), {}, (), CANARY, lambda _: True)
