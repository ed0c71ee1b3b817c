"""Policies that many tests start from."""

from agent.policy.document import Source
from agent.policy.errors import PolicyError
from agent.policy.parse import parse_policy
from agent.policy.schema import Policy

GOOD = """
targets:
  api:
    protocol: http
    address: https://api.example.com
    credential: {provider: static, file: /etc/loopwarden/token, shape: bearer}
  plain: {protocol: http, address: "http://10.0.0.9:8080", durability: process}
loops:
  nightly:
    who: [{user: root}, {group: jobs}, {uid: 1000}]
    max_duration: 2h
    adopt_joiners: true
    rules:
      - {target: api, allow: {method: GET, path: /v1/**}}
      - {target: api, deny: {path: /v1/secret/**}}
      - {target: plain, allow: {method: [GET, POST]}, mode: shadow}
"""


def parse(*texts: str) -> Policy:
    """Parse texts as a.yaml, b.yaml and so on."""
    sources = [Source(f"{chr(97 + index)}.yaml", text) for index, text in enumerate(texts)]
    return parse_policy(sources, lambda _: "-----BEGIN CERTIFICATE-----\n")


def problems(*texts: str) -> str:
    """Return the problems of texts that are no policy."""
    try:
        parse(*texts)
    except PolicyError as error:
        return str(error)
    raise AssertionError("this is a policy")
