"""Credentials of provider oauth2: each error has its line and column, and the provider agrees."""

import pytest

from agent.credentials.oauth2.settings import read_settings
from agent.credentials.spec import CredentialError
from agent.model.ids import TargetName
from tests.unit.policy.samples import parse, problems

GOOD = """targets:
  api:
    protocol: http
    address: https://api.example.com
    credential:
      provider: oauth2
      shape: bearer
      token_url: https://id.example.com/token
      revoke_url: https://id.example.com/revoke
      client_id: robot
      file: /etc/loopwarden/secrets/robot
      scope: [read, write]
      audience: https://api.example.com
      longest: 2h
"""


def test_the_provider_reads_what_the_policy_has_read() -> None:
    """One text or a list, durations in seconds."""
    credential = parse(GOOD).targets[TargetName("api")].credential
    assert credential is not None
    settings = read_settings(dict(credential.settings))
    assert settings.scope == ("read", "write")
    assert settings.audience == ("https://api.example.com",)
    assert settings.longest_s == 7_200
    assert (settings.client_auth, settings.source[0]) == ("basic", "file")


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ("token_url: https://id.example.com/token", "key_id: k", "6:7", "'token_url'"),
        ("https://id.example.com/token", "http://id.example.com/token", "8:18", "https://HOST"),
        ("https://id.example.com/token", "https://u@id.example.com/", "8:18", "https://HOST"),
        ("https://id.example.com/token", "https://id.example.com/t?a=b", "8:18", "https://HOST"),
        ("scope: [read, write]", 'scope: [read, "a b"]', "12:21", "a scope"),
        ("scope: [read, write]", "scopes: [read]", "12:7", "did you mean 'scope'"),
        ("scope: [read, write]", "grant: password", "12:14", "client_credentials"),
        ("scope: [read, write]", "grant: refresh_token", "12:7", "refresh_token_file"),
        ("scope: [read, write]", "refresh_token_file: /x", "12:7", "has no refresh_token_file"),
        ("scope: [read, write]", "algorithm: ES256", "12:7", "nothing is signed"),
        ("scope: [read, write]", "algorithm: HS256", "12:18", "RS256"),
        ("scope: [read, write]", "environment: X", "6:7", "one of file"),
        ("scope: [read, write]", "client_auth: none", "12:7", "proves who it is"),
        ("longest: 2h", "longest: 59s", "14:16", "1m to"),
        ("longest: 2h", "longest: 31d", "14:16", "1m to"),
        ("file: /etc/loopwarden/secrets/robot", "file: robot", "11:13", "absolute path"),
        ("shape: bearer", "shape: basic", "7:7", "does not make shape basic"),
        ("audience: https://api.example.com", "subject: x", "13:7", "has no subject"),
        ("scope: [read, write]", "grant: token_exchange", "12:7", "or 'subject_token'"),
        ("scope: [read, write]", "subject_token: run", "12:7", "has no subject_token"),
        ("scope: [read, write]", "subject_token: /x", "12:22", "write one of run"),
        ("scope: [read, write]", "assertion: run", "12:7", "has no assertion"),
        ("revoke_url: https://id.example.com/revoke", "introspect_url: https://a/", "9:7", "needs"),
    ],
)
def test_errors_have_a_place(old: str, new: str, place: str, said: str) -> None:
    """At the value, at the key where keys do not go together, or at the credential."""
    assert old in GOOD
    found = problems(GOOD.replace(old, new))
    assert any(f":{place}: " in each and said in each for each in found.splitlines()), found


def test_the_provider_refuses_the_same() -> None:
    """A journal is a file: its settings are checked again."""
    credential = parse(GOOD).targets[TargetName("api")].credential
    assert credential is not None
    good = dict(credential.settings)
    for change in (
        {"token_url": "http://elsewhere/"},
        {"scope": '["a b"]'},
        {"scope": "read"},
        {"longest": "59"},
        {"longest": "1h"},
        {"password": "x"},
        {"grant": "refresh_token"},
    ):
        with pytest.raises(CredentialError):
            read_settings(good | change)
