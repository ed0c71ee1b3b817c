"""What a target says of its token endpoint, checked."""

from collections.abc import Mapping
from dataclasses import dataclass

from agent.credentials.settings import check_settings
from agent.policy.declared import SOURCES, items_of
from agent.policy.parse_oauth2 import OAUTH2, default_auth

LONGEST_S = 86_400
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"


@dataclass(frozen=True, slots=True)
class OAuthSettings:
    """Checked. "" stands for what was not said; source ("", "") for no secret."""

    token_url: str
    revoke_url: str
    introspect_url: str
    ca: str
    grant: str
    client_id: str
    client_auth: str
    source: tuple[str, str]
    scope: tuple[str, ...]
    audience: tuple[str, ...]
    resource: tuple[str, ...]
    refresh_token_file: str
    subject_token_file: str
    subject_token_type: str
    requested_token_type: str
    of_run: bool  # what is exchanged, or stated, is the token that let the run start
    issuer: str
    subject: str
    algorithm: str
    key_id: str
    assertion_audience: str
    longest_s: int

    @property
    def refresh_key(self) -> str:
        """What its refresh token is remembered by."""
        return f"refresh token of {self.client_id} at {self.token_url} ({self.refresh_token_file})"


def read_settings(settings: Mapping[str, str]) -> OAuthSettings:
    """Check and return the settings.

    Raises:
        CredentialError: one is missing, unknown or wrong.
    """
    check_settings("oauth2", settings, OAUTH2)
    said = settings.get
    return OAuthSettings(
        said("token_url", ""),
        said("revoke_url", ""),
        said("introspect_url", ""),
        said("ca", ""),
        said("grant", "client_credentials"),
        said("client_id", ""),
        default_auth(settings),
        next(((key, settings[key]) for key in SOURCES if key in settings), ("", "")),
        items_of(settings, "scope"),
        items_of(settings, "audience"),
        items_of(settings, "resource"),
        said("refresh_token_file", ""),
        said("subject_token_file", ""),
        said("subject_token_type", JWT_TYPE),
        said("requested_token_type", ""),
        "subject_token" in settings or "assertion" in settings,
        said("issuer", "") or said("client_id", ""),
        said("subject", "") or said("issuer", "") or said("client_id", ""),
        said("algorithm", "RS256"),
        said("key_id", ""),
        said("assertion_audience", "") or said("token_url", ""),
        int(said("longest", str(LONGEST_S))),
    )
