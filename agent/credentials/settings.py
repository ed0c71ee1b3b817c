"""A provider's settings against what it declares, in the provider's own kind of error."""

from collections.abc import Mapping

from agent.credentials.spec import CredentialError
from agent.policy.declared import Declared, check_declared


def check_settings(provider: str, settings: Mapping[str, str], declared: Declared) -> None:
    """Check them again: the policy did, where it was loaded, and a journal may be older.

    Raises:
        CredentialError: one is missing, unknown or wrong; nothing was made.
    """
    try:
        check_declared(settings, declared)
    except ValueError as error:
        text = f"a credential of provider {provider}: {error}"
        raise CredentialError(text, nothing_made=True) from error
