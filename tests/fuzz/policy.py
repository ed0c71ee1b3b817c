"""Invariant: any text is a policy, the same each time, or a bounded list of its problems, soon."""

import functools

from agent.policy.document import Source
from agent.policy.errors import PROBLEMS_MAX, PolicyError
from agent.policy.parse import parse_policy
from agent.policy.schema import Policy
from tests.fuzz.engine import main
from tests.unit.policy.samples import GOOD
from tests.unit.spent import is_quick

CPU_S_MAX = 2.0  # of an input of some KiB; it takes about 10 ms
SEEDS = (
    GOOD.encode(),
    b"# nothing\n",
    b"a: &a [b, b]\nc: &c [*a, *a]\nd: [*c, *c]\n",
    b"targets: {x: {protocol: http, address: 'https://[::1]:8443', ca: /ca.pem, dial: 'h:1'}}\n",
    b"loops: {n: {rules: [{target: x, allow: {path: '/a/**/b%2f*', method: '*'}}], who: []}}\n",
    b"targets: {d: {protocol: postgres, address: '[::1]', settings: {a: b}, auth: [md5]}}\n",
    b"targets: {d: {protocol: postgres, address: x, functions: {f.g: read}, database: d}}\n",
    b"targets: {d: {protocol: postgres, credential: {provider: postgres, grants: [SELECT ON t]}}}",
    b"loops: {n: {rules: [{target: d, deny: {tables: ['\"A\".b*', c], unbounded: true}}]}}\n",
    b"%YAML 1.1\n---\n? - ! !!str |+2\n  \xc3\xa4\n...\n--- >-\n <<: *x\n",
    b"[" * 40 + b"]" * 40,
    b"a: 1\na: 1\n" * 60,
)


def check(data: bytes) -> None:
    """Parse it twice: as it stands, and with bytes that are no UTF-8 as lone surrogates."""
    for text in (data.decode("utf-8", "surrogateescape"), data.decode("latin-1")):
        assert _parse(text) == _parse(text)
        assert is_quick(functools.partial(_parse, text), CPU_S_MAX)


def _parse(text: str) -> Policy | str:
    try:
        policy = parse_policy([Source("a.yaml", text)], lambda _: "-----BEGIN CERTIFICATE-----\n")
    except PolicyError as error:
        problems = error.problems
    else:
        assert policy.revision
        return policy
    assert 0 < len(problems) <= PROBLEMS_MAX + 1
    return "\n".join(map(str, problems))


if __name__ == "__main__":
    main("policy")
