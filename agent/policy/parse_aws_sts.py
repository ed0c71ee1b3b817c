"""A credential of provider aws_sts: keys of a role for each lease, narrowed by a session policy."""

import json
from collections.abc import Mapping

from agent.policy.declared import (
    PATH,
    SOURCES,
    URL,
    Declared,
    Kind,
    matching,
    one_of,
    one_source,
)

DURATION_S_MIN, DURATION_S_MAX = 900, 43_200  # STS's own bounds of DurationSeconds
POLICY_CHARACTERS_MAX = 2_048  # STS's own, of a session policy's plain text
RUN = "run"  # in the place of a file: the token that let the run start
POLICY_ARNS_MAX = 10  # STS's own
TAGS_MAX = 50  # STS's own
_WORD = r"[A-Za-z0-9_+=,.@-]"
_WITH_KEYS = ("access_key_id", "external_id", "source_identity", "session_tags", *SOURCES)
_TAG = r"[A-Za-z0-9_ .:/+@-]{1,128}=[A-Za-z0-9_ .:/=+@-]{0,256}"


def compact_policy(written: str) -> str:
    """Return a session policy as it is sent.

    Raises:
        ValueError: it is no JSON object with a Statement, or too long.
    """
    try:
        found = json.loads(written)
    except (ValueError, RecursionError):
        raise ValueError("the session policy is no JSON") from None
    if not isinstance(found, dict) or not found.get("Statement"):
        raise ValueError("a session policy is a JSON object with a Statement")
    compact = json.dumps(found, separators=(",", ":"))
    if len(compact) > POLICY_CHARACTERS_MAX:
        raise ValueError(f"a session policy has at most {POLICY_CHARACTERS_MAX} characters")
    return compact


def _wrong(settings: Mapping[str, str]) -> tuple[str, str] | None:
    tokens = [key for key in ("token_file", "web_identity") if key in settings]
    if len(tokens) > 1:
        return tokens[1], "one of token_file and web_identity"
    if tokens:
        for key in _WITH_KEYS:
            if key in settings:
                return key, f"with {tokens[0]} (AssumeRoleWithWebIdentity) there is no {key}"
        return None
    if "access_key_id" not in settings:
        return "", "it needs access_key_id and its secret key, or token_file, or web_identity"
    return one_source(settings, "the secret key of access_key_id")


AWS_STS = Declared(
    "aws_sts",
    {
        "role_arn": Kind(
            matching(rf"arn:aws[a-z-]{{0,16}}:iam::[0-9]{{12}}:role/({_WORD}|/){{1,512}}",
                     "arn:aws:iam::ACCOUNT:role/NAME")
        ),
        "region": Kind(matching(r"[a-z]{2,4}(-[a-z]{2,16}){1,3}-[0-9]{1,2}", "a region")),
        "endpoint": URL,
        "ca": PATH,
        "access_key_id": Kind(matching(r"[A-Za-z0-9_]{16,128}", "an access key id")),
        **SOURCES,
        "token_file": PATH,
        "web_identity": Kind(one_of(RUN)),
        "session_policy": Kind(compact_policy, characters=2 * POLICY_CHARACTERS_MAX),
        "policy_arns": Kind(
            matching(rf"arn:aws[a-z-]{{0,16}}:iam::([0-9]{{12}}|aws):policy/({_WORD}|/){{1,512}}",
                     "arn:aws:iam::ACCOUNT:policy/NAME"),
            POLICY_ARNS_MAX,
        ),
        "duration": Kind(lambda _: None, seconds=(DURATION_S_MIN, DURATION_S_MAX)),
        "external_id": Kind(matching(r"[A-Za-z0-9_+=,.@:/-]{2,1224}", "an external id")),
        "source_identity": Kind(matching(rf"{_WORD}{{2,64}}", "a source identity")),
        "session_tags": Kind(matching(_TAG, "KEY=VALUE"), TAGS_MAX),
    },
    ("role_arn", "region"),
    _wrong,
)  # fmt: skip
