"""Credentials of provider vault: mistakes have a place, and the provider reads what loads."""

import json
import re
from pathlib import Path

import pytest

from agent.credentials.vault import wire
from agent.credentials.vault.child import BIRTH_S
from agent.credentials.vault.engines import LEASE_CHARACTERS_MAX
from agent.credentials.vault.probing import RIGHTS
from agent.credentials.vault.settings import read_settings
from agent.model.ids import TargetName
from agent.policy import vault_words
from agent.policy.vault_words import POLICIES_MAX, VAULT_KEYS
from tests.unit.policy.samples import parse, problems

PAGE = Path(wire.__file__).with_name("README.md").read_text(encoding="utf-8")
GOOD = """targets:
  db:
    protocol: postgres
    address: orders.internal
    credential:
      provider: vault
      address: https://bao.internal:8200
      namespace: team/a
      ca: /etc/ssl/bao.pem
      auth: approle
      mount: hosts/approle
      role_id: 5a3e6f1c-0f43
      systemd_credential: secret-id
      wrapped: true
      token_role: loopwarden
      policies: [orders-read, base]
      path: database/creds/orders
      user_field: username
      field: password
      ttl: 15m
loops:
  nightly:
    who: [{user: root}]
    rules: []
"""
BY_JWT = GOOD.replace("auth: approle", "auth: jwt").replace("role_id: 5a3e6f1c-0f43", "role: host")
BY_JWT = BY_JWT.replace("      wrapped: true\n", "").replace("hosts/approle", "hosts/jwt")
CERTIFICATE = GOOD.replace("      field: password\n", "      common_name: orders.app\n").replace(
    "user_field: username", "shape: client-certificate"
)


def settings(text: str = GOOD) -> dict[str, str]:
    """Return the settings of the target's credential."""
    credential = parse(text).targets[TargetName("db")].credential
    assert credential is not None
    return dict(credential.settings)


def test_the_provider_takes_what_the_policy_gives() -> None:
    """What loads here is never refused there for its form."""
    read = read_settings(settings())
    assert read.url == "https://bao.internal:8200"
    assert (read.auth, read.mount, read.role, read.wrapped) == (
        "approle", "hosts/approle", "5a3e6f1c-0f43", True,
    )  # fmt: skip
    assert read.policies == ("orders-read", "base")
    assert (read.field, read.user_field) == ("password", "username")
    assert read_settings(settings(BY_JWT)).role == "host"
    assert read_settings(settings(CERTIFICATE)).common_name == "orders.app"
    plain = GOOD.replace("https://bao.internal:8200", "http://[::1]:8200")
    assert read_settings(settings(plain)).url == "http://[::1]:8200"
    allowed = GOOD.replace("https://bao.internal", "http://bao.internal").replace(
        "auth: approle", "auth: approle\n      allow_cleartext: true"
    )
    assert read_settings(settings(allowed)).allow_cleartext


MISTAKES = [
    (GOOD, "https://bao", "http://bao", "a.yaml:7:7", "tokens go in clear"),
    (GOOD, ":8200", ":8200/v1", "a.yaml:7:16", "no path"),
    (GOOD, "https://bao.internal:8200", "bao.internal:8200", "a.yaml:7:16", "write https://"),
    (GOOD, "namespace: team/a", "namespace: /team", "a.yaml:8:18", "a path is words"),
    (GOOD, "ca: /etc", "ca: etc", "a.yaml:9:11", "absolute path"),
    (GOOD, "auth: approle", "auth: approl", "a.yaml:10:13", "did you mean 'approle'?"),
    (GOOD, "auth: approle", "auth: jwt", "a.yaml:10:7", "auth: jwt needs the key 'role'"),
    (GOOD, "auth: approle", "auth: token", "a.yaml:12:7", "auth: token has no role_id"),
    (GOOD, "      role_id: 5a3e6f1c-0f43\n", "", "a.yaml:10:7", "needs the key 'role_id'"),
    (GOOD, "role_id: 5a3e6f1c-0f43", "role_id: a b", "a.yaml:12:16", "a name is letters"),
    (GOOD, "      token_role: loopwarden\n", "", "a.yaml:6:7", "needs the key 'token_role'"),
    (GOOD, "      auth: approle\n", "", "a.yaml:6:7", "needs the key 'auth'"),
    (GOOD, "      systemd_credential: secret-id\n", "", "a.yaml:6:7", "has one of file"),
    (GOOD, "wrapped: true", "wrapped: yes", "a.yaml:14:16", "write true or false"),
    (GOOD, "policies: [orders-read, base]", "policies: [a b]", "a.yaml:16:18", "a name is"),
    (GOOD, "database/creds/orders", "v1//creds", "a.yaml:17:13", "a path is words"),
    (GOOD, "database/creds/orders", "a/../b", "a.yaml:17:13", "a path is words"),
    (GOOD, "database/creds/orders", "a?b=c", "a.yaml:17:13", "a path is words"),
    (GOOD, "ttl: 15m", "common_name: x", "a.yaml:20:7", "has no common_name"),
    (GOOD, "token_role:", "tokenrole:", "a.yaml:15:7", "did you mean 'token_role'?"),
    (CERTIFICATE, "      common_name: orders.app\n", "", "a.yaml:6:7", "needs a common_name"),
    (CERTIFICATE, "ttl: 15m", "field: x", "a.yaml:20:7", "has its own fields"),
    (CERTIFICATE, "ttl: 15m", "user_field: x", "a.yaml:20:7", "has no user_field"),
    (BY_JWT, "ttl: 15m", "wrapped: true", "a.yaml:19:7", "auth: jwt has no wrapped"),
]


@pytest.mark.parametrize(("text", "right", "wrong", "place", "said"), MISTAKES)
def test_a_mistake_is_named_with_its_place(
    text: str, right: str, wrong: str, place: str, said: str
) -> None:
    """Line and column, in words that help."""
    assert right in text
    found = problems(text.replace(right, wrong, 1)).splitlines()
    assert [line for line in found if line.startswith(f"{place}:") and said in line], found


def test_policies_are_bounded() -> None:
    """POLICIES_MAX are taken, one more is not."""
    for count in (POLICIES_MAX, POLICIES_MAX + 1):
        text = GOOD.replace("[orders-read, base]", json.dumps([f"p{n}" for n in range(count)]))
        if count == POLICIES_MAX:
            assert len(read_settings(settings(text)).policies) == POLICIES_MAX
        else:
            assert f"more than {POLICIES_MAX} in one list" in problems(text)


@pytest.mark.parametrize(
    ("parse_one", "longest"),
    [(vault_words.parse_path, "a" * 256), (vault_words.parse_word, "a" * 128)],
)
def test_names_are_bounded(parse_one: object, longest: str) -> None:
    """At the limit and one past it."""
    assert callable(parse_one)
    assert parse_one(longest) == longest
    with pytest.raises(ValueError, match="at most"):
        parse_one(longest + "a")


def test_the_page_is_the_code() -> None:
    """Its example loads; its keys, rights and bounds are those of the code."""
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    head = GOOD[: GOOD.index("    credential:")]
    tail = GOOD[GOOD.index("loops:") :]
    indented = "".join(f"    {line}\n" for line in example.splitlines())
    read_settings(settings(head + indented + tail))
    assert [key for key in VAULT_KEYS if f"`{key}`" not in PAGE] == []
    assert [path for path in RIGHTS if f'"{path}"' not in PAGE] == []
    for text in (f"{wire.REQUEST_S:.0f} s", f"lives for {BIRTH_S} s", str(POLICIES_MAX),
                 str(LEASE_CHARACTERS_MAX)):  # fmt: skip
        assert text in PAGE


@pytest.mark.parametrize("protocol", ["http", "postgres"])
def test_an_ssh_certificate_is_taken_by_no_protocol_yet(protocol: str) -> None:
    """The provider makes it; a target that asks for it is told so, with line and column."""
    text = GOOD.replace("user_field: username", "shape: ssh-certificate")
    text = text.replace("      field: password\n", "")
    if protocol == "http":
        text = text.replace("protocol: postgres", "protocol: http")
        text = text.replace("address: orders.internal", "address: https://orders.internal")
    line = text.splitlines().index("      shape: ssh-certificate") + 1
    said = f"a.yaml:{line}:7: protocol {protocol} does not take shape ssh-certificate"
    assert said in problems(text)
