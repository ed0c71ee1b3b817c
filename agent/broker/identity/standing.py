"""What every token must say beside its signature: for whom, about whom, from when until when.

RFC 7519 section 4.1 with its types taken strictly: a time is a whole number of seconds, an
audience is one text (or a list of that one). A token for several audiences is refused: any of
them could show it here.
"""

from dataclasses import dataclass

from agent.broker.identity.refusal import Check, Unverified
from agent.policy.parse_issuer import AGE_S_MAX, CLOCK_SKEW_S_MAX
from agent.policy.schema import Issuer

SUBJECT_BYTES_MAX = 512
TOKEN_ID_BYTES_MAX = 512
SECONDS_MAX = 253_402_300_799  # 9999-12-31


@dataclass(frozen=True, slots=True)
class Standing:
    """The registered claims, typed. token_id is "" for a token without jti."""

    subject: str
    issued_s: int
    expires_s: int
    ends_s: int  # from then on no policy can take it: another one may come while it lives
    token_id: str


def audience_of(claims: dict[str, object]) -> str:
    """Return the one audience.

    Raises:
        Unverified: AUDIENCE.
    """
    found = claims.get("aud")
    if isinstance(found, list):
        if len(found) != 1:
            raise Unverified(Check.AUDIENCE, f"aud is a list of {len(found)}")
        found = found[0]
    if not isinstance(found, str) or not found:
        raise Unverified(Check.AUDIENCE, "aud is no text")
    return found


def check_standing(claims: dict[str, object], issuer: Issuer, now_s: int) -> Standing:
    """Return the claims if they hold now.

    Raises:
        Unverified: SUBJECT, TIMES, EXPIRED, NOT_YET, FUTURE, TOO_OLD, JTI.
    """
    subject = _subject(claims.get("sub"))
    expires, issued = _time(claims, "exp"), _time(claims, "iat")
    begins = _time(claims, "nbf") if "nbf" in claims else issued
    if issued > expires or begins > expires:
        raise Unverified(Check.TIMES, "it ends before it begins")
    skew = issuer.clock_skew_s
    if now_s >= expires + skew:
        raise Unverified(Check.EXPIRED, f"exp was {now_s - expires} s ago (skew {skew} s)")
    if begins > now_s + skew:
        raise Unverified(Check.NOT_YET, f"nbf is {begins - now_s} s ahead (skew {skew} s)")
    if issued > now_s + skew:
        raise Unverified(Check.FUTURE, f"iat is {issued - now_s} s ahead (skew {skew} s)")
    if now_s >= issued + issuer.max_age_s + skew:
        age = f"{now_s - issued} s old (max_age {issuer.max_age_s} s)"
        raise Unverified(Check.TOO_OLD, age)
    ends_s = min(expires, issued + AGE_S_MAX) + CLOCK_SKEW_S_MAX
    return Standing(subject, issued, expires, ends_s, _token_id(claims))


def _subject(found: object) -> str:
    if not isinstance(found, str) or not found:
        raise Unverified(Check.SUBJECT, "sub is no text")
    if len(found.encode()) > SUBJECT_BYTES_MAX:
        raise Unverified(Check.SUBJECT, f"sub has more than {SUBJECT_BYTES_MAX} bytes")
    if not found.isprintable():
        raise Unverified(Check.SUBJECT, "sub has characters that are not printed")
    return found


def _time(claims: dict[str, object], name: str) -> int:
    found = claims.get(name)
    if isinstance(found, bool) or not isinstance(found, int):
        raise Unverified(Check.TIMES, f"{name} is no whole number")
    if not 0 < found <= SECONDS_MAX:
        raise Unverified(Check.TIMES, f"{name} is no time")
    return found


def _token_id(claims: dict[str, object]) -> str:
    if "jti" not in claims:
        return ""
    found = claims["jti"]
    if not isinstance(found, str) or not found or len(found.encode()) > TOKEN_ID_BYTES_MAX:
        raise Unverified(Check.JTI, f"jti is no text of 1 to {TOKEN_ID_BYTES_MAX} bytes")
    return found
