"""The run's own token as a credential of a server that trusts its issuer too.

It is good until its `exp`, which is early with some issuers (GitHub Actions: 5 min), and it is
kept in memory alone: what is issued after that, or after a restart of the broker, is refused.
"""

from agent.credentials.spec import CredentialError, Wanted
from agent.model.secret import Secret


def token_of_run(wanted: Wanted, now_ms: int) -> Secret:
    """Return the token that let the run start.

    Raises:
        CredentialError: nothing_made: there is none (any more); the text says what to do.
    """
    shown = wanted.run_token
    if shown is None:
        text = (
            "the run was started without an OIDC token, which this target asks for: start it with "
            "one (`loopwarden run --oidc-token-file`), and name its issuer in 'who' of the loop"
        )
        raise CredentialError(text, nothing_made=True)
    if shown.token is None:
        text = (
            "the run's OIDC token is gone, since it is kept in memory only and the broker was "
            "started anew: start the run again"
        )
        raise CredentialError(text, nothing_made=True)
    if now_ms >= shown.ends_ms:
        text = (
            f"the run's OIDC token expired {(now_ms - shown.ends_ms) // 1000} s ago: start the run "
            "again, or have its issuer make tokens that live longer"
        )
        raise CredentialError(text, nothing_made=True)
    return shown.token
