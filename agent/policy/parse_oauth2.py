"""A credential of provider oauth2: a token for each lease, from a token endpoint."""

from collections.abc import Mapping

from agent.policy.declared import (
    LIST_MAX,
    PATH,
    SOURCES,
    TEXT,
    URL,
    Declared,
    Kind,
    any_text,
    matching,
    one_of,
    one_source,
)

GRANTS = ("client_credentials", "refresh_token", "token_exchange", "jwt_bearer")
CLIENT_AUTHS = ("basic", "post", "private_key_jwt", "none")
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
RUN = "run"  # in the place of a secret: the token that let the run start
LONGEST_S_MAX = 30 * 86_400
_TOKEN_TYPES = tuple(
    f"urn:ietf:params:oauth:token-type:{name}"
    for name in ("jwt", "id_token", "access_token", "saml2")
)
# RFC 6749 section 3.3: what a scope may have
_SCOPE = matching(r"[!#-\[\]-~]+", "a scope (no space, quote or backslash)")
_ABSOLUTE = matching(r"[A-Za-z][A-Za-z0-9+.-]*:[!$-~]+", "a URI without fragment")


def default_auth(settings: Mapping[str, str]) -> str:
    """Return how the client proves itself: of jwt_bearer the assertion alone says who it is."""
    grant = settings.get("grant", "client_credentials")
    return settings.get("client_auth", "none" if grant == "jwt_bearer" else "basic")


def _wrong(settings: Mapping[str, str]) -> tuple[str, str] | None:
    grant, auth = settings.get("grant", "client_credentials"), default_auth(settings)
    wrong = _shown(settings, grant)
    if wrong is not None:
        return wrong
    states = grant == "jwt_bearer" and "assertion" not in settings
    signs = auth == "private_key_jwt" or states
    if states and auth in {"basic", "post"}:
        return "client_auth", "jwt_bearer: client_auth is none or private_key_jwt (the same key)"
    if states and "issuer" not in settings and "client_id" not in settings:
        return "grant", "grant jwt_bearer needs an issuer (or a client_id, which is then it)"
    if grant == "client_credentials" and auth == "none":
        return "client_auth", "client_credentials: a client proves who it is"
    if auth != "none" and "client_id" not in settings:
        return "", f"client_auth {auth} needs the key 'client_id'"
    if signs or auth != "none":
        what = "the signing key (PEM)" if signs else "the client's secret"
        return one_source(settings, what) or _needless(settings, signs, states, grant)
    given = [key for key in SOURCES if key in settings]
    if given:
        return given[0], "client_auth none has no secret"
    return _needless(settings, signs, states, grant)


def _shown(settings: Mapping[str, str], grant: str) -> tuple[str, str] | None:
    """What is wrong with what a grant shows."""
    shows = {
        "refresh_token": ("refresh_token_file",),
        "token_exchange": ("subject_token_file", "subject_token"),
    }
    for each, keys in shows.items():
        given = [key for key in keys if key in settings]
        if grant == each and not given:
            return "grant", f"grant {grant} needs the key {' or '.join(map(repr, keys))}"
        if grant == each and len(given) > 1:
            return given[1], f"grant {grant} has one of {' and '.join(keys)}"
        if grant != each and given:
            return given[0], f"grant {grant} has no {given[0]}"
    if grant != "jwt_bearer" and "assertion" in settings:
        return "assertion", f"grant {grant} has no assertion"
    return None


def _needless(
    settings: Mapping[str, str],
    signs: bool,  # noqa: FBT001 - a fact
    states: bool,  # noqa: FBT001 - a fact
    grant: str,
) -> tuple[str, str] | None:
    for key in ("algorithm", "key_id", "assertion_audience"):
        if not signs and key in settings:
            return key, f"nothing is signed here: {key} needs private_key_jwt or jwt_bearer"
    for key in ("issuer", "subject"):
        if not states and key in settings:
            what = "the run's token as assertion" if grant == "jwt_bearer" else f"grant {grant}"
            return key, f"{what} has no {key} to be said"
    for key in ("subject_token_type", "requested_token_type"):
        if grant != "token_exchange" and key in settings:
            return key, f"grant {grant} has no {key}"
    if "introspect_url" in settings and "revoke_url" not in settings:
        return "introspect_url", "introspect_url confirms a revocation: it needs a revoke_url"
    return None


OAUTH2 = Declared(
    "oauth2",
    {
        "token_url": URL,
        "revoke_url": URL,
        "introspect_url": URL,
        "ca": PATH,
        "grant": Kind(one_of(*GRANTS)),
        "client_id": TEXT,
        "client_auth": Kind(one_of(*CLIENT_AUTHS)),
        **SOURCES,
        "scope": Kind(_SCOPE, LIST_MAX),
        "audience": Kind(any_text, LIST_MAX),
        "resource": Kind(_ABSOLUTE, LIST_MAX),
        "refresh_token_file": PATH,
        "subject_token_file": PATH,
        "subject_token": Kind(one_of(RUN)),
        "assertion": Kind(one_of(RUN)),
        "subject_token_type": Kind(one_of(*_TOKEN_TYPES)),
        "requested_token_type": Kind(one_of(*_TOKEN_TYPES)),
        "issuer": TEXT,
        "subject": TEXT,
        "algorithm": Kind(one_of(*ALGORITHMS)),
        "key_id": TEXT,
        "assertion_audience": TEXT,
        "longest": Kind(any_text, seconds=(60, LONGEST_S_MAX)),
    },
    ("token_url",),
    _wrong,
)
