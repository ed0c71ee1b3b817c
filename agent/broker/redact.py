"""Redaction of the command lines that we record: values that look like secrets are cut out.

It errs towards cutting. It is no promise: a secret in argv is visible to the whole host anyway.
"""

import re

ARGUMENT_CHARACTERS_MAX = 1_024
ARGUMENTS_MAX = 256
CUT = "[redacted]"
_NAME = (
    r"[\w.-]*(?:pass(?:w(?:or)?d|phrase)?|secret|token|(?:api|access|private)[_-]?key|credential"
    r"|auth(?:orization)?|cookie|session[_-]?id)[\w.-]*"
)
_ASSIGNED = re.compile(rf"(?i)^(-{{0,2}}{_NAME}\s*[=:]\s*)(.+)$", re.DOTALL)
_FLAG = re.compile(rf"(?i)^-{{1,2}}{_NAME}$")
_INNER = re.compile(rf"(?i)(\b{_NAME}[\"']?\s*[=:]\s*[\"']?)([^\s\"'&,;]+)")
_USERINFO = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^/@\s]+@")
_SCHEME = re.compile(r"(?i)\b(bearer|basic|token)\s+[A-Za-z0-9._~+/=-]{6,}")
_KNOWN = re.compile(
    r"\b(?:gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}"
    r"|AKIA[A-Z0-9]{12,}|sk-[\w-]{16,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*|hv[sb]\.[\w-]{16,})"
)
_USER_FLAGS = frozenset({"-u", "--user", "--proxy-user", "-U"})


def redact(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command line for the record: bounded, and without what looks like a secret."""
    cut: list[str] = []
    hide_next = colon_next = False
    for argument in argv[:ARGUMENTS_MAX]:
        if hide_next:
            cut.append(CUT)
        elif colon_next and ":" in argument:
            cut.append(f"{argument.partition(':')[0]}:{CUT}")
        else:
            cut.append(_redact_one(argument))
        hide_next = bool(cut) and len(cut) > 1 and bool(_FLAG.fullmatch(argument)) and not hide_next
        colon_next = argument in _USER_FLAGS
    if len(argv) > ARGUMENTS_MAX:
        cut.append(f"… {len(argv) - ARGUMENTS_MAX} more")
    return tuple(cut)


def _redact_one(argument: str) -> str:
    text = argument
    text = _USERINFO.sub(rf"\1{CUT}@", text)
    text = _SCHEME.sub(rf"\1 {CUT}", text)
    text = _KNOWN.sub(CUT, text)
    text = _ASSIGNED.sub(rf"\1{CUT}", text) if " " not in text.split("=")[0] else text
    text = _INNER.sub(rf"\1{CUT}", text)
    if len(text) > ARGUMENT_CHARACTERS_MAX:
        text = f"{text[:ARGUMENT_CHARACTERS_MAX]}…"
    return text
