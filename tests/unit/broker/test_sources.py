"""What the broker reads for providers: systemd's credentials and its own environment."""

import asyncio
from pathlib import Path

import pytest

from agent.broker.sources import (
    SYSTEMD_CREDENTIALS_MAX,
    BrokerClient,
    systemd_credentials,
)
from agent.credentials.spec import SECRET_BYTES_MAX, CredentialError


def test_systemd_credentials_are_read_by_name(tmp_path: Path) -> None:
    """Every file of $CREDENTIALS_DIRECTORY, up to the bound of each; without one there is none."""
    assert systemd_credentials("") == {}
    (tmp_path / "api-token").write_bytes(b"c4n4ry\n")
    (tmp_path / "large").write_bytes(b"x" * SECRET_BYTES_MAX)
    found = systemd_credentials(str(tmp_path))
    assert sorted(found) == ["api-token", "large"]
    assert found["api-token"].reveal() == b"c4n4ry\n"
    assert "c4n4ry" not in repr(found)
    (tmp_path / "large").write_bytes(b"x" * (SECRET_BYTES_MAX + 1))
    with pytest.raises(ValueError, match=f"large has more than {SECRET_BYTES_MAX} bytes"):
        systemd_credentials(str(tmp_path))


def test_the_number_of_systemd_credentials_is_bounded(tmp_path: Path) -> None:
    """At the bound they are read, one more is an error."""
    for number in range(SYSTEMD_CREDENTIALS_MAX):
        (tmp_path / str(number)).touch()
    assert len(systemd_credentials(str(tmp_path))) == SYSTEMD_CREDENTIALS_MAX
    (tmp_path / "more").touch()
    with pytest.raises(ValueError, match=f"more than {SYSTEMD_CREDENTIALS_MAX} credentials"):
        systemd_credentials(str(tmp_path))


@pytest.mark.parametrize("size", [SECRET_BYTES_MAX + 1, 0], ids=["too long", "not set"])
def test_a_variables_name_is_not_told(size: int) -> None:
    """The line may reach the loop, and the name may be a secret that was put in its place."""
    environment = {"c4n4ry": "x" * size} if size else {}
    with pytest.raises(CredentialError) as error:
        asyncio.run(BrokerClient({}, environment).environment("c4n4ry"))
    assert "c4n4ry" not in str(error.value)
