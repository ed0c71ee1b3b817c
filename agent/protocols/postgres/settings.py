"""The settings a session starts with: what a loop may set, what is pinned, what is ours.

Pinned are those that change what a statement's text means, or who the session is. They are sent
at startup, refused when the loop asks for another value, and checked in what the server tells.
"""

import re
from collections.abc import Iterator, Mapping

from agent.model.grant import PostgresOptions
from agent.model.reason import Reason
from agent.protocols.postgres.answers import Refusal, Refused
from agent.protocols.postgres.frames import Malformed
from agent.protocols.postgres.limits import (
    APPLICATION_NAME_BYTES_MAX,
    IDENTIFIER_BYTES_MAX,
    PARAMETERS_MAX,
)
from agent.protocols.postgres.sql.setting_names import HARMLESS

# sent at every startup
PINNED: Mapping[str, str] = {
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
}
READ_ONLY = "default_transaction_read_only"
# what else a server tells of the same: it keeps this one spelling of UTF8 (check_client_encoding)
_TOLD_TOO = {"client_encoding": "UNICODE"}
# of the loop's choice, as with SET later on, which any rule allows; values are the server's to
# check. Not what loads a library, which takes effect at startup alone, nor what a whole session
# would see of rows.
_ALLOWED = (HARMLESS - {"local_preload_libraries", "row_security"}) | {READ_ONLY}
_OWN = frozenset({"user", "database", "options", "replication"})
_NAME = re.compile(r"[a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_$]*)?")
_TRUE = frozenset({"on", "true", "yes", "1", "t", "y"})


def split_options(text: str) -> Iterator[tuple[str, str]]:
    """Return the settings of an `options` parameter, as the server reads its command line.

    White space separates arguments, a backslash takes the next character as it is. Only
    `-c name=value` and `--name=value` are settings; the server's other switches are refused.

    Raises:
        Malformed: an argument is no setting, or there are too many.
    """
    arguments = iter(_arguments(text))
    for count, argument in enumerate(arguments):
        if count >= PARAMETERS_MAX:
            raise Malformed("too many settings in `options`")
        if argument.startswith("--"):
            setting = argument[2:]
        elif argument == "-c":
            setting = next(arguments, "")
        elif argument.startswith("-c"):
            setting = argument[2:]
        else:
            raise Malformed("an argument in `options` that is no setting")
        name, equals, value = setting.partition("=")
        if not name or not equals:
            raise Malformed("an argument in `options` that is no setting")
        yield name.replace("-", "_"), value


def _arguments(text: str) -> list[str]:
    """Split as the server's pg_split_opts does: its white space is that of the C locale."""
    found: list[str] = []
    current: list[str] | None = None
    characters = iter(text)
    for character in characters:
        if character in " \t\n\v\f\r":
            if current is not None:
                found.append("".join(current))
            current = None
            continue
        current = [] if current is None else current
        current.append(next(characters, "") if character == "\\" else character)
    if current is not None:
        found.append("".join(current))
    return found


class Settings:
    """What one session starts with.

    Args:
        options: the target's.
        asked: the startup parameters of the loop.

    Raises:
        Malformed: they have no one meaning.
        Refused: one of them may not be set.
    """

    __slots__ = ("_asked", "_fixed", "application", "database", "replication", "user")

    def __init__(self, options: PostgresOptions, asked: tuple[tuple[str, str], ...]) -> None:
        own = {name: value for name, value in asked if name in _OWN}
        self.user = own.get("user", "")
        self.database = own.get("database", "") or self.user
        self.replication = _replication(own.get("replication", ""))
        self.application = ""
        self._fixed = dict(PINNED)
        if options.read_only:
            self._fixed[READ_ONLY] = "on"
        self._fixed |= {name.lower(): value for name, value in options.settings}
        self._asked: dict[str, str] = {}
        for name, value in split_options(own.get("options", "")):
            self._ask(name.lower(), value)
        for name, value in asked:
            if name not in _OWN:
                self._ask(name.lower(), value)
        if not self.user:
            text = "The client named no user."
            raise Refused(Refusal(Reason.PROTOCOL_ERROR, text, sqlstate="28000"))

    def upstream(self, name: str) -> dict[str, str]:
        """Return the settings for the server. name: what ties its logs to our records."""
        shown = self.application.encode("ascii", "replace").decode()
        room = APPLICATION_NAME_BYTES_MAX - len(name) - 1
        application = f"{shown[: max(0, room)].rstrip()} {name}".strip()
        return {"application_name": application, **self._asked, **self._fixed}

    def pinned(self, told: Mapping[str, str], user: str) -> dict[str, str]:
        """Return what of the server's parameters has to stay, once it has told all of them.

        Raises:
            Refused: one that decides over a text's meaning is not as it has to be.
        """
        wanted = {
            "client_encoding": "UTF8",
            "standard_conforming_strings": "on",
            "session_authorization": user,
        }
        if self._fixed.get(READ_ONLY) == "on":
            wanted[READ_ONLY] = "on"
        for name, value in wanted.items():
            if told.get(name, None if name in PINNED else value) != value:
                text = f"The server did not take the session's setting {name}."
                raise Refused(Refusal(Reason.UPSTREAM_PROTOCOL_ERROR, text))
        return {name: value for name, value in wanted.items() if name in told}

    def _ask(self, name: str, value: str) -> None:
        fixed = self._fixed.get(name)
        if fixed is not None:
            if not _same(name, fixed, value):
                raise Refused(_refusal(name, f"It is pinned to '{fixed}' for this target."))
            return
        allowed = name in _ALLOWED or (name.startswith("enable_") and _NAME.fullmatch(name))
        if not allowed:
            raise Refused(_refusal(name, "It is not among the settings a loop may start with."))
        if name == "application_name":
            self.application = value
        elif self._asked.setdefault(name, value) != value:
            raise Malformed("a setting twice, with different values")


def is_as_pinned(name: str, wanted: str, told: str) -> bool:
    """Whether what the server tells of a pinned setting is what it has to be."""
    return told in {wanted, _TOLD_TOO.get(name)}


def _refusal(name: str, why: str) -> Refusal:
    shown = name if _NAME.fullmatch(name) else "of that name"
    text = f"The setting {shown} may not be set at startup."
    step = "Remove it from the connection's parameters and `options`."
    if "." in shown:  # an extension's, or the application's own
        step = f"{step[:-1]}; a statement can SET it once the session is open."
    return Refusal(Reason.POLICY_DENIED, text, detail=why, next_step=step)


def _same(name: str, fixed: str, value: str) -> bool:
    if name == "client_encoding":  # as the server's pg_char_to_encoding reads names
        return re.sub(r"[^a-z0-9]", "", value.lower()) in {"utf8", "unicode"}
    if fixed == "on":
        return value.lower() in _TRUE
    return value.lower() == fixed.lower()


def _replication(value: str) -> str:
    """Return "", "true" or "database"; the server takes any spelling of a boolean."""
    if value == "database":
        return value
    lowered = value.lower()
    if not lowered or lowered in {"off", "false", "no", "0", "f", "n"}:
        return ""
    if lowered in _TRUE:
        return "true"
    raise Malformed("a value of `replication` that is none")


def checked_database(options: PostgresOptions, asked: str) -> str:
    """Return the database for a session that asked for one.

    Raises:
        Refused: the target does not have it.
    """
    if options.database:
        return options.database
    if options.databases and asked not in options.databases:
        text = "That database is not among those that the target has."
        step = f"Ask for one of: {', '.join(options.databases)}."
        raise Refused(Refusal(Reason.POLICY_DENIED, text, next_step=step, sqlstate="3D000"))
    if len(asked.encode()) > IDENTIFIER_BYTES_MAX:
        text = "The database's name is longer than a name can be."
        raise Refused(Refusal(Reason.PROTOCOL_ERROR, text, sqlstate="42622"))
    return asked
