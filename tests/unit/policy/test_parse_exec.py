"""Credentials of provider exec: each error has its line and column."""

import pytest

from agent.model.ids import TargetName
from tests.unit.policy.samples import parse, problems

GOOD = """targets:
  api:
    protocol: http
    address: https://api.example.com
    credential:
      provider: exec
      shape: bearer
      command: [/usr/local/bin/make-token, --short]
      revoke_command: /usr/local/bin/end-token
      env: [STAGE=test]
"""


def test_commands_are_lists() -> None:
    """A single text is a program without arguments."""
    credential = parse(GOOD).targets[TargetName("api")].credential
    assert credential is not None
    settings = dict(credential.settings)
    assert settings["command"] == '["/usr/local/bin/make-token", "--short"]'
    assert settings["revoke_command"] == '["/usr/local/bin/end-token"]'


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ("command: [/usr/local/bin/make-token, --short]", "longest: 1h", "6:7", "'command'"),
        ("[/usr/local/bin/make-token, --short]", "make-token", "8:7", "absolute path"),
        ("[/usr/local/bin/make-token, --short]", "[]", "8:7", "absolute path"),
        ("[STAGE=test]", "[STAGE]", "10:13", "NAME=value"),
        ("[STAGE=test]", "[LD_PRELOAD=/x]", "10:7", "LD_"),
        ("[STAGE=test]", "[LOOPWARDEN_RUN=x]", "10:7", "LOOPWARDEN_"),
    ],
)
def test_errors_have_a_place(old: str, new: str, place: str, said: str) -> None:
    """At the value, the key, or the credential for what is missing."""
    assert old in GOOD
    found = problems(GOOD.replace(old, new))
    assert any(f":{place}: " in each and said in each for each in found.splitlines()), found
