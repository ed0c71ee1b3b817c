"""A credential of provider postgres: a role for each run, made by an admin that the broker knows.

What the target says already (address, name for TLS, CA file, database) need not be said again.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from agent.policy.address import AddressError, parse_host_port
from agent.policy.document import Node
from agent.policy.reading import Fields, Problems, choice, duration, number, one_or_more, text
from agent.policy.sql_grants import GRANTS_MAX, NAMES_MAX, parse_grant, parse_identifier

PASSWORD_SOURCES = ("file", "systemd_credential", "environment")
ROLE_KEYS = (
    "admin", *PASSWORD_SOURCES, "address", "server_name", "ca", "database", "grants", "member_of",
    "search_path", "statement_timeout", "connection_limit", "on_drop", "reassign_to",
)  # fmt: skip
STATEMENT_TIMEOUT_S_MAX = 7 * 86_400
CONNECTION_LIMIT_MAX = 10_000
_ON_DROP = choice("reassign", "drop")
_SOURCES = {
    "file": re.compile(r"/.*"),
    "systemd_credential": re.compile(r"(?!\.\.?\Z)[A-Za-z0-9_.@:-]{1,100}"),
    "environment": re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}"),
}
_WANTED = {
    "file": "an absolute path",
    "systemd_credential": "the name of LoadCredential=",
    "environment": "the name of a variable",
}
Settings = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Server:
    """What the target says of its server. name "": without TLS. ca "": the system's roots."""

    address: str
    name: str
    ca: str
    database: str


def check_source(fields: Fields, problems: Problems, what: str) -> None:
    """Object unless a secret comes from one place, and one that can be."""
    given = [key for key in PASSWORD_SOURCES if key in fields]
    if len(given) != 1:
        problems.add(fields.place, f"{what} has one of {', '.join(PASSWORD_SOURCES)}")
        return
    value = fields.optional(given[0], text, "")
    if value and not _SOURCES[given[0]].fullmatch(value):
        fields.problem(given[0], f"{given[0]}: write {_WANTED[given[0]]}")


def read_role(fields: Fields, problems: Problems, server: Server) -> Settings:
    """Return the provider's settings, in the order of keys; what is wrong is added to problems."""
    check_source(fields, problems, "the admin's password")
    fields.required("admin", _identifier, "")
    if not server.database and "database" not in fields:
        text_ = "a role is made in one database: give the target a database, or the credential one"
        problems.add(fields.place, text_)
    if fields.optional("on_drop", _ON_DROP, "reassign") == "drop" and "reassign_to" in fields:
        fields.problem("reassign_to", "with on_drop: drop nothing is reassigned")
    read: dict[str, Callable[[Node, Problems], str]] = {
        **dict.fromkeys(PASSWORD_SOURCES, text),
        "admin": _identifier,
        "address": _address,
        "server_name": text,
        "ca": _path,
        "database": text,
        "grants": _list(parse_grant, GRANTS_MAX),
        "member_of": _list(parse_identifier, NAMES_MAX),
        "search_path": _list(parse_identifier, NAMES_MAX),
        "statement_timeout": _statement_timeout,
        "connection_limit": _connection_limit,
        "on_drop": _ON_DROP,
        "reassign_to": _identifier,
    }
    settings = {
        "address": server.address,
        "server_name": server.name,
        "ca": server.ca,
        "database": server.database,
    } | {key: fields.optional(key, read[key], "") for key in ROLE_KEYS if key in fields}
    return tuple((key, settings[key]) for key in sorted(settings) if settings[key])


def _identifier(node: Node, problems: Problems) -> str:
    written = text(node, problems)
    return written if _fits(parse_identifier, node, written, problems) else ""


def _fits(parse: Callable[[str], object], node: Node, written: str, problems: Problems) -> bool:
    try:
        parse(written)
    except ValueError as error:
        if written:
            problems.add(node.place, f"{written[:80]!r}: {error}")
        return False
    return True


def _address(node: Node, problems: Problems) -> str:
    written = text(node, problems)
    try:
        parse_host_port(written)
    except AddressError as error:
        problems.add(node.place, str(error))
    return written


def _path(node: Node, problems: Problems) -> str:
    written = text(node, problems)
    if written and not written.startswith("/"):
        problems.add(node.place, "write the CA file's absolute path")
    return written


def _list(parse: Callable[[str], object], most: int) -> Callable[[Node, Problems], str]:
    """Return a reader of a list of texts that parse; its value is JSON."""

    def read(node: Node, problems: Problems) -> str:
        found = one_or_more(node, problems)
        if len(found) > most:
            problems.add(node.place, f"more than {most} in one list")
        for place, written in found:
            try:
                parse(written)
            except ValueError as error:
                if written:
                    problems.add(place, f"{written[:80]!r}: {error}")
        return json.dumps([written for _, written in found], ensure_ascii=False)

    return read


def _statement_timeout(node: Node, problems: Problems) -> str:
    seconds = duration(node, problems)
    if seconds > STATEMENT_TIMEOUT_S_MAX:
        problems.add(node.place, "a statement_timeout is at most 7d")
    return str(seconds)


def _connection_limit(node: Node, problems: Problems) -> str:
    limit = number(node, problems)
    if not 0 < limit <= CONNECTION_LIMIT_MAX:
        problems.add(node.place, f"a connection_limit is 1 to {CONNECTION_LIMIT_MAX}")
    return str(limit)
