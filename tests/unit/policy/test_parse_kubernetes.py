"""Credentials of provider kubernetes: each error has its line and column."""

import pytest

from agent.credentials.kubernetes.api import read_settings
from agent.model.ids import TargetName
from tests.unit.policy.samples import parse, problems

GOOD = """targets:
  api:
    protocol: http
    address: https://reports.example
    credential:
      provider: kubernetes
      shape: bearer
      server: https://cluster.example:6443
      namespace: jobs
      service_account: report-reader
      file: /etc/loopwarden/secrets/cluster-token
      audiences: https://reports.example
"""


def test_the_provider_reads_what_the_policy_has_read() -> None:
    """Paths follow from checked names."""
    credential = parse(GOOD).targets[TargetName("api")].credential
    assert credential is not None
    settings = read_settings(dict(credential.settings))
    assert settings.token == "/api/v1/namespaces/jobs/serviceaccounts/report-reader/token"
    assert settings.audiences == ("https://reports.example",)


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ("namespace: jobs", "ca: /x", "6:7", "'namespace'"),
        ("namespace: jobs", "namespace: ../x", "9:18", "a namespace"),
        ("namespace: jobs", f"namespace: {'x' * 64}", "9:18", "a namespace"),
        ("service_account: report-reader", "service_account: a/b", "10:24", "a service account"),
        ("https://cluster.example:6443", "http://cluster.example", "8:15", "https://HOST"),
        ("file: /etc/loopwarden/secrets/cluster-token", "ca: /x", "6:7", "one of file"),
        ("shape: bearer", "shape: header", "7:7", "does not make shape"),
    ],
)
def test_errors_have_a_place(old: str, new: str, place: str, said: str) -> None:
    """At the value, or at the credential for what is missing."""
    assert old in GOOD
    found = problems(GOOD.replace(old, new))
    assert any(f":{place}: " in each and said in each for each in found.splitlines()), found


def test_the_longest_namespace() -> None:
    """63 characters, as RFC 1123 has it."""
    parse(GOOD.replace("namespace: jobs", f"namespace: {'x' * 63}"))
