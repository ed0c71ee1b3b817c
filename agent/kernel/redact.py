"""What argv may show. Secrets on a command line end here, before any record is made."""

import re

REDACTED = "[redacted]"
ARGUMENTS_MAX = 64  # more are left out, and argv is marked as cut
ARGUMENT_CHARS_MAX = 256  # a longer argument is cut, and argv is marked as cut

_NAMES = r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[-_]?key|auth|credential|cookie)"
_OPTION = re.compile(rf"(?i)(--?[\w.-]*{_NAMES}[\w.-]*)(=.*)?", re.DOTALL)
_ASSIGNMENT = re.compile(rf"(?i)(\b[\w.-]*{_NAMES}[\w.-]*\s*[=:]\s*)\S+")
_USERINFO = re.compile(r"(?i)([a-z][a-z0-9+.-]*://[^/\s:@]*:)[^@/\s]+(@)")
_SCHEME = re.compile(r"(?i)\b((?:bearer|basic|token)\s+)\S+")
_KNOWN = re.compile(
    r"\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{16,}|xox[abpr]-[\w-]{10,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_SEPARATE_SHORT = frozenset({"-u", "--user", "-p", "-H", "--header", "--proxy-user"})


def redact_argument(text: str) -> str:
    """Return one argument without what looks like a secret."""
    text = _SCHEME.sub(rf"\1{REDACTED}", text)
    text = _USERINFO.sub(rf"\1{REDACTED}\2", text)
    text = _ASSIGNMENT.sub(rf"\1{REDACTED}", text)
    return _KNOWN.sub(REDACTED, text)


def redact_argv(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the arguments redacted: secret options lose their value, attached or separate."""
    shown: list[str] = []
    drop_next = False
    for argument in argv[:ARGUMENTS_MAX]:
        option = _OPTION.fullmatch(argument)
        if drop_next and not argument.startswith("-"):
            shown.append(REDACTED)
            drop_next = False
            continue
        drop_next = False
        if option and shown:
            drop_next = option.group(2) is None
            shown.append(option.group(1) + (f"={REDACTED}" if option.group(2) else ""))
        elif shown and shown[-1] in _SEPARATE_SHORT and ":" in argument:
            shown.append(argument.partition(":")[0] + ":" + REDACTED)
        else:
            shown.append(redact_argument(argument)[:ARGUMENT_CHARS_MAX])
    return tuple(shown)


def split_argv(raw: bytes, total: int) -> tuple[tuple[str, ...], bool]:
    """Return the redacted arguments of a 0-divided block, and whether any part is missing."""
    parts = tuple(part.decode(errors="replace") for part in raw.split(b"\0"))
    whole = total <= len(raw)
    if whole and parts and parts[-1] == "":
        parts = parts[:-1]
    cut = not whole or len(parts) > ARGUMENTS_MAX
    return redact_argv(parts), cut or any(len(part) > ARGUMENT_CHARS_MAX for part in parts)
