"""Which check a token failed: for the operator. Whoever showed it is told none of this."""

from enum import StrEnum


class Check(StrEnum):
    """The checks, in the order in which they are made."""

    SIZE = "size"
    FORM = "form"  # three parts of canonical base64url (RFC 7515)
    HEADER = "header"
    PAYLOAD = "payload"
    ISSUER = "issuer"  # none that the loop names
    ALGORITHM = "algorithm"  # none that is pinned for the issuer
    KEYS_UNAVAILABLE = "keys-unavailable"  # the issuer can't be asked, and nothing is kept
    KEYS_STALE = "keys-stale"  # it can't be asked, and what is kept is too old
    KEY_UNKNOWN = "key-unknown"
    KEY_UNFIT = "key-unfit"  # of another type, use or algorithm, or several of one name
    SIGNATURE = "signature"
    SUBJECT = "subject"
    AUDIENCE = "audience"
    TIMES = "times"  # exp, nbf or iat is no time
    EXPIRED = "expired"
    NOT_YET = "not-yet-valid"
    FUTURE = "issued-in-the-future"
    TOO_OLD = "too-old"
    JTI = "jti"  # jti is no text
    CLAIMS = "claims"
    POLICY = "policy"  # it changed while the token was verified
    REPLAYED = "replayed"
    REPLAY_UNKNOWN = "replay-unknown"  # whether it was used can't be said


class Unverified(Exception):
    """The token is refused. detail is for the operator: it quotes nothing that is not verified."""

    def __init__(self, check: Check, detail: str) -> None:
        super().__init__(f"{check}: {detail}")
        self.check = check
        self.detail = detail
