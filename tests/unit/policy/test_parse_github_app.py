"""Credentials of provider github_app: each error has its line and column."""

import pytest

from agent.credentials.github_app.api import API_URL, read_settings
from agent.model.ids import TargetName
from tests.unit.policy.samples import parse, problems

GOOD = """targets:
  api:
    protocol: http
    address: https://api.github.com
    credential:
      provider: github_app
      shape: bearer
      app_id: 12345
      installation_id: 77
      file: /etc/loopwarden/secrets/app.pem
      repositories: [orders, reports]
      permissions: ["contents:read"]
"""


def test_the_provider_reads_what_the_policy_has_read() -> None:
    """Lists, and the API where GitHub has it."""
    credential = parse(GOOD).targets[TargetName("api")].credential
    assert credential is not None
    settings = read_settings(dict(credential.settings))
    assert settings.repositories == ("orders", "reports")
    assert settings.permissions == {"contents": "read"}
    assert settings.api_url == API_URL


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ("app_id: 12345", "ca: /x", "6:7", "'app_id'"),
        ("installation_id: 77", "installation_id: octo", "9:24", "number"),
        ("file: /etc/loopwarden/secrets/app.pem", "ca: /x", "6:7", "one of file"),
        ("[orders, reports]", "[orders, octo/reports]", "11:30", "without its owner"),
        ('"contents:read"', '"contents"', "12:21", "NAME:read"),
        ('"contents:read"', '"contents:all"', "12:21", "NAME:read"),
        ("shape: bearer", "shape: query-parameter", "7:7", "does not make shape"),
    ],
)
def test_errors_have_a_place(old: str, new: str, place: str, said: str) -> None:
    """At the value, or at the credential for what is missing."""
    assert old in GOOD
    found = problems(GOOD.replace(old, new))
    assert any(f":{place}: " in each and said in each for each in found.splitlines()), found
