"""What a role's process shows of the daemon's environment."""

import pytest

from agent.kernel.environment import environment_of

WHOLE = {
    "API_TOKEN": "canary",
    "CREDENTIALS_DIRECTORY": "/run/credentials/loopwarden.service",
    "NOTIFY_SOCKET": "/run/systemd/notify",
    "PATH": "/usr/bin",
    "LC_ALL": "C.UTF-8",
    "SSL_CERT_FILE": "/etc/ssl/cert.pem",
    "JOURNAL_STREAM": "9:1",
}


@pytest.mark.parametrize("role", ["proxy@0", "proxy@11", "reporter", "kernel"])
def test_no_role_but_the_broker_is_given_what_may_be_a_secret(role: str) -> None:
    """Locale, certificates, search path and the like; nothing that the operator named."""
    assert set(environment_of(role, WHOLE)) == {"PATH", "LC_ALL", "SSL_CERT_FILE", "JOURNAL_STREAM"}


def test_the_broker_is_given_all() -> None:
    """It reads static credentials from variables and from systemd's directory."""
    assert environment_of("broker", WHOLE) == WHOLE
