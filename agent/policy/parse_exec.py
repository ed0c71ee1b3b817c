"""A credential of provider exec: what a program of the operator prints."""

import json
from collections.abc import Mapping

from agent.policy.declared import LIST_MAX, Declared, Kind, any_text, matching

LONGEST_S_MAX = 30 * 86_400
_OURS = "LOOPWARDEN_"


def _wrong(settings: Mapping[str, str]) -> tuple[str, str] | None:
    for key in ("command", "revoke_command"):
        argv = _list(settings, key)
        if key in settings and (not argv or not argv[0].startswith("/")):
            return key, f"{key}: the program's absolute path, then its arguments"
    if any(
        each.startswith((_OURS, "LD_", "KUBERNETES_EXEC_INFO=")) for each in _list(settings, "env")
    ):
        return "env", f"env: no {_OURS}*, LD_* or KUBERNETES_EXEC_INFO"
    return None


def _list(settings: Mapping[str, str], key: str) -> list[str]:
    """Return a list, empty when it is none: that is told elsewhere."""
    try:
        found = json.loads(settings.get(key, "[]"))
    except ValueError:
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


EXEC = Declared(
    "exec",
    {
        "command": Kind(any_text, LIST_MAX),
        "revoke_command": Kind(any_text, LIST_MAX),
        "env": Kind(matching(r"[A-Za-z_][A-Za-z0-9_]{0,99}=.*", "NAME=value"), LIST_MAX),
        "longest": Kind(any_text, seconds=(60, LONGEST_S_MAX)),
    },
    ("command",),
    _wrong,
)
