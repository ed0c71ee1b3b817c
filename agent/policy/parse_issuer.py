"""Issuers of identity tokens (OpenID Connect Discovery 1.0): whom the policy trusts, and how far.

An issuer is its URL, exactly as its tokens have it in `iss`. What is not written has a default;
an issuer that only a `who` names has them all.
"""

import re
from urllib.parse import urlsplit

from agent.policy.document import Node, Sequence
from agent.policy.reading import Fields, Problems, duration, flag, one_or_more, text, unknown
from agent.policy.schema import Issuer

ISSUERS_MAX = 64
URL_CHARACTERS_MAX = 200
AUDIENCE_CHARACTERS_MAX = 200
AUDIENCE = "loopwarden"
# asymmetric alone (RFC 7518, RFC 8037): with HMAC whoever can check a token can make one
ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
ALGORITHMS_DEFAULT = ("RS256", "ES256")
CLOCK_SKEW_S, CLOCK_SKEW_S_MAX = 60, 300
AGE_S, AGE_S_MAX = 3_600, 86_400  # since iat
REFRESH_S, REFRESH_S_MIN, REFRESH_S_MAX = 300, 30, 86_400
STALE_S, STALE_S_MAX = 3_600, 7 * 86_400
ISSUER_KEYS = (
    "url", "audience", "ca", "algorithms", "clock_skew", "max_age", "refresh", "stale", "reusable",
    "jwks_file",
)  # fmt: skip
NOT_ASKED = ("ca", "refresh", "stale")  # have no meaning beside a file of keys
_URL = re.compile(r"https://[!-~]+")


def issuer_url(node: Node, problems: Problems) -> str:
    """Return an issuer's URL: https, without user, query and fragment (section 2 of Discovery)."""
    written = text(node, problems)
    if not written:
        return ""
    try:
        parts = urlsplit(written)
        bare = parts.username is None and not parts.query and not parts.fragment
        good = bool(_URL.fullmatch(written) and parts.hostname and bare and "?" not in written)
        _ = parts.port
    except ValueError:
        good = False
    if not good or "#" in written or len(written) > URL_CHARACTERS_MAX:
        most = f"https://HOST[:PORT][/PATH], at most {URL_CHARACTERS_MAX} characters"
        problems.add(node.place, f"an issuer's URL is {most}, as its tokens have it")
        return ""
    return written


def audience(node: Node, problems: Problems) -> str:
    """Return whom tokens must be made for."""
    written = text(node, problems)
    if len(written) > AUDIENCE_CHARACTERS_MAX:
        problems.add(node.place, f"an audience has at most {AUDIENCE_CHARACTERS_MAX} characters")
        return ""
    return written


def default_issuer(url: str) -> Issuer:
    """Return an issuer of which the policy has the URL alone."""
    return Issuer(
        url=url,
        audience=AUDIENCE,
        ca="",
        algorithms=ALGORITHMS_DEFAULT,
        clock_skew_s=CLOCK_SKEW_S,
        max_age_s=AGE_S,
        refresh_s=REFRESH_S,
        stale_s=STALE_S,
        reusable=False,
    )


def read_issuer(name: str, node: Node, problems: Problems) -> Issuer:
    """Return an issuer; what is wrong is added to problems."""
    fields = Fields(node, f"issuer {name!r}", ISSUER_KEYS, problems)

    def seconds(key: str, default: int, least: int, most: int) -> int:
        value = fields.optional(key, duration, default)
        if not least <= value <= most:
            fields.problem(key, f"{key} is {least}s to {most}s")
            return default
        return value

    jwks_file = fields.optional("jwks_file", _absolute, "")
    for key in NOT_ASKED:
        if "jwks_file" in fields and key in fields:
            fields.problem(key, f"an issuer with a jwks_file is not asked: it has no {key}")
    return Issuer(
        url=fields.required("url", issuer_url, ""),
        audience=fields.optional("audience", audience, AUDIENCE),
        ca=fields.optional("ca", text, ""),
        algorithms=fields.optional("algorithms", _algorithms, ALGORITHMS_DEFAULT),
        clock_skew_s=seconds("clock_skew", CLOCK_SKEW_S, 1, CLOCK_SKEW_S_MAX),
        max_age_s=seconds("max_age", AGE_S, 1, AGE_S_MAX),
        refresh_s=seconds("refresh", REFRESH_S, REFRESH_S_MIN, REFRESH_S_MAX),
        stale_s=seconds("stale", STALE_S, 1, STALE_S_MAX),
        reusable=fields.optional("reusable", flag, default=False),
        jwks_file=jwks_file,
    )


def _absolute(node: Node, problems: Problems) -> str:
    written = text(node, problems)
    if written and not written.startswith("/"):
        problems.add(node.place, "write the key file's absolute path")
        return ""
    return written


def _algorithms(node: Node, problems: Problems) -> tuple[str, ...]:
    found = one_or_more(node, problems)
    if isinstance(node, Sequence) and not found:
        problems.add(node.place, "no algorithms: no token could be verified")
    for place, name in found:
        if name and name not in ALGORITHMS:
            problems.add(place, unknown("algorithm", name, ALGORITHMS))
    return tuple(dict.fromkeys(name for _, name in found))
