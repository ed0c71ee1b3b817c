"""Tokens that only their bearer can end: how they are named in the journal without the secret.

The handle is `until <Unix ms>`: the moment by which it has ended by itself. It is written down
before the token is asked for, so "" means that nothing was asked for. The token is held in the
broker's memory; after a crash it is lost, and the lease says so until that moment.
"""

from agent.credentials.spec import CredentialError, Wanted

_PREFIX = "until "
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def handle_until(end_ms: int) -> str:
    """Return the handle of what ends by itself then."""
    return f"{_PREFIX}{end_ms}"


def until_of(handle: str) -> int:
    """Return the moment of a handle, 0 for none."""
    text = handle.removeprefix(_PREFIX).partition(" ")[0]
    return int(text) if handle.startswith(_PREFIX) and text.isdecimal() else 0


def asked_ms(wanted: Wanted) -> int:
    """Return when the lease began: a ULID begins with 48 bits of Unix time in milliseconds."""
    value = 0
    for letter in wanted.lease_id[:10]:
        value = value * 32 + max(0, _CROCKFORD.find(letter))
    return value


def hold_key(wanted: Wanted) -> str:
    """Return what its token is held by."""
    return f"token of {wanted.lease_id}"


def lost(handle: str, why: str) -> CredentialError:
    """Return what revoke raises when nobody can end it any more."""
    return CredentialError(f"{why}; it ends by itself", permanent=True, ends_ms=until_of(handle))
