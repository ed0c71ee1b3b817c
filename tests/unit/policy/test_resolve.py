"""Which target a destination names."""

import pytest

from agent.model.flow import Endpoint
from agent.model.grant import Target
from agent.model.ids import LoopName
from agent.policy.compile import assign_synthetic
from agent.policy.resolve import Unlisted, resolve
from tests.unit.policy.samples import parse

POLICY = parse("""
targets:
  api: {protocol: http, address: https://api.example}
  api-admin: {protocol: http, address: "https://api.example:8443"}
  clear: {protocol: http, address: http://clear.example}
  literal: {protocol: http, address: "http://[::ffff:10.0.0.9]:8080"}
  literal6: {protocol: http, address: "https://[2001:DB8::1]"}
  dialled: {protocol: http, address: https://dialled.example, dial: "192.0.2.7:9443"}
  twin-a: {protocol: http, address: https://twin-a.example, dial: "192.0.2.8:443"}
  twin-b: {protocol: http, address: https://twin-b.example, dial: "192.0.2.8:443"}
  foreign: {protocol: http, address: https://foreign.example}
  db: {protocol: postgres, address: "db.example:443"}
  own: {protocol: http, address: "https://localhost:8444"}
  hosts-file: {protocol: http, address: "https://own.example:8445", dial: "127.0.0.1:8445"}
loops:
  l:
    rules:
      - {target: api, allow: {path: /**}}
      - {target: api-admin, allow: {path: /**}}
      - {target: clear, allow: {path: /**}}
      - {target: literal, allow: {path: /**}}
      - {target: literal6, allow: {path: /**}}
      - {target: dialled, allow: {path: /**}}
      - {target: twin-a, allow: {path: /**}}
      - {target: twin-b, allow: {path: /**}}
      - {target: db, allow: {effects: [read]}}
      - {target: own, allow: {path: /**}}
      - {target: hosts-file, allow: {path: /**}}
""")
NAMES = assign_synthetic(POLICY)


def _resolve(address: str, port: int) -> Target | Unlisted:
    if address in NAMES or address.removesuffix("/6") in NAMES:
        address = NAMES[address.removesuffix("/6")][address.endswith("/6")]
    return resolve(POLICY, NAMES, POLICY.loops[LoopName("l")], Endpoint(address, port))


@pytest.mark.parametrize(
    ("address", "port", "name"),
    [
        ("api.example", 443, "api"),
        ("api.example/6", 443, "api"),
        ("api.example", 80, "api"),
        ("api.example", 8443, "api-admin"),
        ("clear.example", 80, "clear"),
        ("10.0.0.9", 8080, "literal"),
        ("2001:db8::1", 443, "literal6"),
        ("2001:db8::1", 80, "literal6"),
        ("192.0.2.7", 9443, "dialled"),
        ("dialled.example", 443, "dialled"),
        ("db.example", 443, "db"),
        ("127.0.0.1", 8444, "own"),
        ("::1", 8444, "own"),
        ("127.0.0.1", 8445, "hosts-file"),
    ],
)
def test_what_names_a_target(address: str, port: int, name: str) -> None:
    """Synthetic addresses of both families, literals, dial addresses; port 80 for https on 443."""
    target = _resolve(address, port)
    assert isinstance(target, Target)
    assert target.name == name


@pytest.mark.parametrize(
    ("address", "port", "said"),
    [
        ("api.example", 8080, "no target is at port 8080 of api.example"),
        ("db.example", 80, "no target is at port 80 of db.example"),
        ("clear.example", 443, "no target is at port 443 of clear.example"),
        ("foreign.example", 443, "target foreign is in no rule of loop l"),
        ("203.0.113.5", 443, "203.0.113.5:443 is the address of no target of loop l"),
        ("192.0.2.7", 443, "the address of no target"),
        ("192.0.2.8", 443, "could be any of the targets twin-a and twin-b"),
        ("10.0.0.9", 80, "the address of no target"),
    ],
)
def test_what_does_not(address: str, port: int, said: str) -> None:
    """Refused, with the cause and a next step."""
    answer = _resolve(address, port)
    assert isinstance(answer, Unlisted)
    assert said in answer.explanation
    assert answer.next_step


def test_targets_of_one_host_share_its_address() -> None:
    """And literals have none."""
    assert set(NAMES) == {target.host for target in POLICY.targets.values()
                          if target.host.endswith((".example", "localhost"))}  # fmt: skip
