"""What a target of protocol postgres has beside the common."""

import re

from agent.model.grant import PostgresOptions
from agent.model.sql import Effect
from agent.policy.document import Node
from agent.policy.reading import Fields, Problems, choice, entries, flag, one_or_more, text, unknown
from agent.policy.sql_names import split_name

POSTGRES_KEYS = ("database", "databases", "read_only", "settings", "functions", "auth")
AUTH_METHODS = ("scram-sha-256", "md5", "password", "trust", "cert")
DATABASES_MAX = 32
SETTINGS_MAX = 32
FUNCTIONS_MAX = 100
NAME_BYTES_MAX = 63  # NAMEDATALEN of an unchanged PostgreSQL, less one
OPTIONS_CHARACTERS_MAX = 4_096  # of all of them together: they cross with the rules
_SETTING = re.compile(r"[a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)?")
# what text means and who the session is are not the policy's to change
FIXED_SETTINGS = frozenset(
    {"client_encoding", "standard_conforming_strings", "backslash_quote", "escape_string_warning",
     "session_authorization", "role", "default_transaction_read_only", "transaction_read_only",
     "application_name", "user", "database", "replication", "options"}
)  # fmt: skip
_EFFECTS = tuple(each.value for each in Effect)
Pairs = tuple[tuple[str, str], ...]


def read_postgres(fields: Fields, problems: Problems) -> PostgresOptions:
    """Return the options among a target's fields; what is wrong is added to problems."""
    no_pairs: Pairs = ()
    no_functions: tuple[tuple[str, Effect], ...] = ()
    no_names: tuple[str, ...] = ()
    options = PostgresOptions(
        database=fields.optional("database", _database, ""),
        databases=fields.optional("databases", _databases, no_names),
        read_only=fields.optional("read_only", flag, default=False),
        settings=fields.optional("settings", _settings, no_pairs),
        functions=fields.optional("functions", _functions, no_functions),
        auth=fields.optional("auth", _auth, no_names),
    )
    if options.database and options.databases and options.database not in options.databases:
        fields.problem("database", "database is none of databases")
    if _characters(options) > OPTIONS_CHARACTERS_MAX:
        text_ = f"databases, settings and functions have over {OPTIONS_CHARACTERS_MAX} characters"
        problems.add(fields.place, text_)
    return options


def _characters(options: PostgresOptions) -> int:
    pairs = (*options.settings, *options.functions)
    names = (options.database, *options.databases, *(one for pair in pairs for one in pair))
    return sum(len(name.encode("utf-8", "replace")) + 2 for name in names)


def _database(node: Node, problems: Problems) -> str:
    name = text(node, problems)
    if len(name.encode("utf-8", "replace")) > NAME_BYTES_MAX:
        problems.add(node.place, f"a database's name has at most {NAME_BYTES_MAX} bytes")
    return name


def _databases(node: Node, problems: Problems) -> tuple[str, ...]:
    found = one_or_more(node, problems)
    if not found or len(found) > DATABASES_MAX:
        problems.add(node.place, f"databases has 1 to {DATABASES_MAX} names")
    for place, name in found:
        if len(name.encode("utf-8", "replace")) > NAME_BYTES_MAX:
            problems.add(place, f"a database's name has at most {NAME_BYTES_MAX} bytes")
    return tuple(name for _, name in found)


def _settings(node: Node, problems: Problems) -> Pairs:
    found = []
    for key, value in entries(node, "settings", problems):
        if key.text in FIXED_SETTINGS:
            instead = "; write read_only: true" if "read_only" in key.text else ""
            problems.add(key.place, f"{key.text!r} is not a policy's to set{instead}")
        elif not _SETTING.fullmatch(key.text) or len(key.text) > 2 * NAME_BYTES_MAX:
            problems.add(key.place, f"not the name of a setting: {key.text[:40]!r}")
        found.append((key.text, text(value, problems)))
    if len(found) > SETTINGS_MAX:
        problems.add(node.place, f"more than {SETTINGS_MAX} settings")
    return tuple(sorted(found))


def _functions(node: Node, problems: Problems) -> tuple[tuple[str, Effect], ...]:
    found = []
    for key, value in entries(node, "functions", problems):
        if split_name(key.text) is None:
            problems.add(key.place, "write NAME or SCHEMA.NAME of one function, without '*'")
        written = choice(*_EFFECTS)(value, problems)
        found.append((key.text, Effect(written)))
    if len(found) > FUNCTIONS_MAX:
        problems.add(node.place, f"more than {FUNCTIONS_MAX} functions")
    return tuple(sorted(found))


def _auth(node: Node, problems: Problems) -> tuple[str, ...]:
    found = one_or_more(node, problems)
    for place, method in found:
        if method and method not in AUTH_METHODS:
            problems.add(place, unknown("login method", method, AUTH_METHODS))
    if not found:
        problems.add(node.place, f"name one or more of {', '.join(AUTH_METHODS)}")
    return tuple(sorted({method for _, method in found}))
