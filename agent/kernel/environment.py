"""Which variables of the daemon's environment a role is started with.

A static credential may be in the broker's environment, which is the service's. A process shows its
environment for as long as it lives (proc(5)), so that only the broker is started with all of it:
the others parse what others wrote, and have no use for a secret.
"""

from collections.abc import Mapping

ALL = frozenset({"broker"})  # it reads static credentials, and systemd's
_NAMES = frozenset(
    {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "JOURNAL_STREAM", "INVOCATION_ID",
     "OPENSSL_CONF", "SSL_CERT_FILE", "SSL_CERT_DIR"}
)  # fmt: skip
_PREFIXES = ("LC_", "LD_", "MALLOC_", "GRPC_", "PYTHON")


def environment_of(role: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a role is started with."""
    if role in ALL:
        return dict(environment)
    return {
        name: value
        for name, value in environment.items()
        if name in _NAMES or name.startswith(_PREFIXES)
    }
