"""A credential of provider vault: what an OpenBao or HashiCorp Vault server makes for each run."""

import json
from collections.abc import Callable

from agent.model.credential import Shape
from agent.policy.document import Node
from agent.policy.parse_role import check_source
from agent.policy.reading import Fields, Problems, choice, flag, one_or_more, text
from agent.policy.vault_words import (
    AUTHS,
    NEEDS,
    NOT_OF,
    POLICIES_MAX,
    VAULT_KEYS,
    parse_path,
    parse_server,
    parse_word,
)

Settings = tuple[tuple[str, str], ...]


def read_vault(fields: Fields, problems: Problems, shape: Shape) -> Settings:
    """Return the provider's settings, in the order of keys; what is wrong is added to problems."""
    check_source(fields, problems, "a login at a vault")
    cleartext = fields.optional("allow_cleartext", flag, default=False)
    read: dict[str, Callable[[Node, Problems], str]] = {
        **dict.fromkeys(VAULT_KEYS, text),
        **dict.fromkeys(("namespace", "mount", "path"), _fitting(parse_path)),
        **dict.fromkeys(
            ("role_id", "role", "token_role", "common_name", "field", "user_field"),
            _fitting(parse_word),
        ),
        "address": _fitting(lambda written: parse_server(written, cleartext=cleartext)),
        "allow_cleartext": _flag,
        "auth": choice(*AUTHS),
        "ca": _absolute,
        "policies": _policies,
        "wrapped": _flag,
    }
    for key in ("address", "token_role", "path"):
        fields.required(key, _nothing, "")
    _check_auth(fields)
    _check_shape(fields, problems, shape)
    settings = {key: fields.optional(key, read[key], "") for key in VAULT_KEYS if key in fields}
    return tuple((key, settings[key]) for key in sorted(settings) if settings[key])


def _check_auth(fields: Fields) -> None:
    auth = fields.required("auth", _silently, "")
    if auth not in AUTHS:
        return  # told where it is read
    for key in NEEDS[auth]:
        if key not in fields:
            fields.problem("auth", f"auth: {auth} needs the key {key!r}")
    for key in NOT_OF[auth]:
        if key in fields:
            fields.problem(key, f"auth: {auth} has no {key}")


def _check_shape(fields: Fields, problems: Problems, shape: Shape) -> None:
    if shape is Shape.CLIENT_CERTIFICATE:
        if "common_name" not in fields:
            problems.add(
                fields.place, f"shape {shape} needs a common_name: whose certificate it is"
            )
    elif "common_name" in fields:
        fields.problem("common_name", f"shape {shape} has no common_name")
    if shape is Shape.CLIENT_CERTIFICATE and "field" in fields:
        fields.problem("field", f"shape {shape} has its own fields")
    if shape not in {Shape.PASSWORD, Shape.BASIC} and "user_field" in fields:
        fields.problem("user_field", f"shape {shape} has no user_field")


def _nothing(_node: Node, _problems: Problems) -> str:
    return ""


def _silently(node: Node, _problems: Problems) -> str:
    return text(node, Problems())


def _flag(node: Node, problems: Problems) -> str:
    return "true" if flag(node, problems) else ""


def _absolute(node: Node, problems: Problems) -> str:
    written = text(node, problems)
    if written and not written.startswith("/"):
        problems.add(node.place, "write the CA file's absolute path")
    return written


def _fitting(parse: Callable[[str], object]) -> Callable[[Node, Problems], str]:
    """Return a reader of a text that parses."""

    def read(node: Node, problems: Problems) -> str:
        written = text(node, problems)
        try:
            parse(written)
        except ValueError as error:
            if written:
                problems.add(node.place, f"{written[:80]!r}: {error}")
        return written

    return read


def _policies(node: Node, problems: Problems) -> str:
    """Return a list as JSON."""
    found = one_or_more(node, problems)
    if len(found) > POLICIES_MAX:
        problems.add(node.place, f"at most {POLICIES_MAX} policies")
    for place, written in found:
        try:
            parse_word(written)
        except ValueError as error:
            if written:
                problems.add(place, f"{written[:80]!r}: {error}")
    return json.dumps([written for _, written in found])
