"""Targets of AWS and credentials of provider aws_sts: each error has its line and column."""

import re
from pathlib import Path

import pytest

from agent.credentials import aws_sts
from agent.credentials.aws_sts.settings import read_settings
from agent.credentials.spec import CredentialError
from agent.model.credential import Shape
from agent.model.grant import AwsOptions
from agent.model.ids import TargetName
from agent.policy.parse_aws_sts import AWS_STS, POLICY_CHARACTERS_MAX, compact_policy
from tests.unit.policy.samples import parse, problems

PAGE = Path(aws_sts.__file__).with_name("README.md").read_text(encoding="utf-8")
GOOD = """targets:
  api:
    protocol: http
    address: https://reports.s3.eu-west-1.amazonaws.com
    aws: {service: s3, region: eu-west-1}
    credential:
      provider: aws_sts
      shape: aws-keys
      region: eu-west-1
      role_arn: arn:aws:iam::123456789012:role/reports
      access_key_id: AKIAEXAMPLE000000000
      file: /etc/loopwarden/secrets/aws
      duration: 15m
      session_policy: '{"Version": "2012-10-17", "Statement": [{"Effect": "Deny"}]}'
      policy_arns: arn:aws:iam::aws:policy/ReadOnlyAccess
      session_tags: [team=a, cost=b=c]
"""


def test_the_provider_reads_what_the_policy_has_read() -> None:
    """The session policy as it is sent, lists, and STS where the region has it."""
    target = parse(GOOD).targets[TargetName("api")]
    assert target.aws == AwsOptions("s3", "eu-west-1")
    assert target.credential is not None
    assert target.credential.shape is Shape.AWS_KEYS
    settings = read_settings(dict(target.credential.settings))
    assert settings.session_policy == '{"Version":"2012-10-17","Statement":[{"Effect":"Deny"}]}'
    assert settings.policy_arns == ("arn:aws:iam::aws:policy/ReadOnlyAccess",)
    assert settings.session_tags == (("team", "a"), ("cost", "b=c"))
    assert settings.duration_s == 900
    assert settings.endpoint == "https://sts.eu-west-1.amazonaws.com"
    assert not settings.by_token
    china = dict(target.credential.settings) | {"region": "cn-north-1"}
    assert read_settings(china).endpoint == "https://sts.cn-north-1.amazonaws.com.cn"


@pytest.mark.parametrize("token", ["token_file: /run/token", "web_identity: run"])
def test_an_identity_token_in_the_place_of_keys(token: str) -> None:
    """Of a file, or the run's own."""
    text = GOOD.replace("access_key_id: AKIAEXAMPLE000000000", token)
    text = text.replace("      file: /etc/loopwarden/secrets/aws\n", "")
    text = text.replace("      session_tags: [team=a, cost=b=c]\n", "")
    credential = parse(text).targets[TargetName("api")].credential
    assert credential is not None
    assert read_settings(dict(credential.settings)).by_token


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ("    aws: {service: s3, region: eu-west-1}\n", "", "3:5", "needs the target's key 'aws'"),
        ("service: s3", "service: s3express", "5:11", "another way to sign"),
        ("service: s3", "service: S3", "5:11", "service's name"),
        ("service: s3, region: eu-west-1}", "service: s3, region: x}", "5:24", "write a region"),
        ("service: s3", "name: s3", "5:11", "unknown key"),
        ("shape: aws-keys", "shape: bearer", "8:7", "does not make shape bearer"),
        ("region: eu-west-1\n      role", "region: Ireland\n      role", "9:15", "a region"),
        ("role/reports", "user/reports", "10:17", "arn:aws:iam"),
        ("access_key_id: AKIAEXAMPLE000000000", "ca: /x", "7:7", "needs access_key_id"),
        ("access_key_id: AKIAEXAMPLE000000000", "access_key_id: x", "11:22", "an access key id"),
        ("file: /etc/loopwarden/secrets/aws", "ca: /x", "7:7", "one of file"),
        ("file: /etc/loopwarden/secrets/aws", "token_file: /x", "11:7", "there is no access"),
        ("duration: 15m", "duration: 899s", "13:17", "15m to 12h"),
        ("duration: 15m", "duration: 43201s", "13:17", "15m to 12h"),
        ('"Statement"', '"Statements"', "14:23", "with a Statement"),
        ("'{\"Version\"", "'[\"Version\"", "14:23", "no JSON"),
        ("policy/ReadOnlyAccess", "role/ReadOnlyAccess", "15:20", "policy/NAME"),
        ("[team=a, cost=b=c]", "[team]", "16:22", "KEY=VALUE"),
    ],
)  # fmt: skip
def test_what_is_wrong(old: str, new: str, place: str, said: str) -> None:
    """It is said where it stands."""
    assert old in GOOD
    found = problems(GOOD.replace(old, new, 1))
    assert any(f":{place}: " in each and said in each for each in found.splitlines()), found


def test_the_page() -> None:
    """Its example is a policy without a warning; it has every key."""
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert parse(example).warnings == ()
    assert [key for key in AWS_STS.kinds if f"`{key}" not in PAGE] == []


def test_keys_that_sign_nothing() -> None:
    """The key `aws` without such a credential is an error; so is the shape for a database."""
    text = GOOD[: GOOD.index("    credential:")]
    assert "only credentials of shape aws-keys" in problems(text)
    bearer = text + "    credential: {provider: static, shape: bearer, file: /x}\n"
    assert "only credentials of shape aws-keys" in problems(bearer)
    database = """targets:
  db:
    protocol: postgres
    address: db.internal
    credential: {provider: aws_sts, shape: aws-keys}
"""
    assert "does not take shape aws-keys" in problems(database)
    static = GOOD[: GOOD.index("      region:")].replace("aws_sts", "static")
    assert "static does not make shape aws-keys" in problems(static)


def test_the_bound_of_a_session_policy() -> None:
    """POLICY_CHARACTERS_MAX without spaces go; one more does not, in the journal's words too."""
    empty = len('{"Statement":""}')
    for size, goes in ((POLICY_CHARACTERS_MAX, True), (POLICY_CHARACTERS_MAX + 1, False)):
        written = '{ "Statement" : "' + "x" * (size - empty) + '" }'
        if goes:
            assert len(compact_policy(written)) == POLICY_CHARACTERS_MAX
        else:
            with pytest.raises(ValueError, match="at most"):
                compact_policy(written)
    with pytest.raises(CredentialError, match="role_arn"):
        read_settings({"region": "eu-west-1"})
