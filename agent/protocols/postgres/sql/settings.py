"""Settings (GUC) that statements change: which are pinned, which are harmless.

Pinned is what decides over the meaning of later text or over who speaks. A pinned setting may
be set to the value it is pinned to, since drivers do that at every start, and back to what the
session began with (RESET, DEFAULT), since the relay sent the pinned values in its startup.
escape_string_warning only warns, and search_path is listed but not pinned.
"""

import re
from collections.abc import Mapping
from typing import Final

from agent.model.sql import Effect, Statement
from agent.protocols.postgres.sql.setting_names import HARMLESS

DYNAMIC: Final = "?"  # a name or value that is no constant
EVERY: Final = "*"

_TRUE = frozenset({"on", "true", "tru", "tr", "t", "yes", "ye", "y", "1"})
_VALUES: Mapping[str, frozenset[str]] = {
    "client_encoding": frozenset({"utf8", "unicode"}),
    "standard_conforming_strings": _TRUE,
    "backslash_quote": frozenset({"safe_encoding"}),
    "session_authorization": frozenset(),
    "role": frozenset({"none"}),
    "session_replication_role": frozenset({"origin"}),
}
_READ_ONLY = frozenset({"default_transaction_read_only", "transaction_read_only"})

PINNED: frozenset[str] = frozenset(_VALUES) | _READ_ONLY


def breaks_pin(name: str, value: str | None, *, read_only: bool) -> bool:
    """Whether giving this setting this value is to be refused whatever the policy says.

    read_only: whether the target's sessions are; if not, both ways of read-only are harmless.
    """
    if name == DYNAMIC:
        return True
    if name in _READ_ONLY:
        if not read_only:
            return False
        # its reset value is "off", whatever the session's default: the server allows it
        if value is None:
            return name == "transaction_read_only"
        return value.lower() not in _TRUE
    wanted = _VALUES.get(name)
    if wanted is None or value is None:
        return False
    if name == "client_encoding":  # the server's names of encodings: letters and digits count
        return re.sub(r"[^a-z0-9]", "", value.lower()) not in wanted
    if name == "role":  # compared as it is written
        return value not in wanted
    return value.lower() not in wanted


def effect_of(name: str, value: str | None) -> Effect:
    """Return SESSION for what touches this session alone, else ADMIN."""
    if breaks_pin(name, value, read_only=False):
        return Effect.ADMIN
    if name in HARMLESS or name in PINNED or name == EVERY or "." in name:
        return Effect.SESSION
    return Effect.ADMIN


def touches_pinned(statement: Statement, *, read_only: bool = True) -> str:
    """Return the name of a pinned setting that the statement would change, or "".

    read_only: whether the target's sessions are. "?" is a setting whose name only the server
    can know.
    """
    for name, value in statement.settings:
        if breaks_pin(name, value, read_only=read_only):
            return name
    return ""
