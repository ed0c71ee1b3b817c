"""Redaction of the command lines that we record: values that look like secrets are cut out.

It errs towards cutting. It is no promise: a secret in argv is visible to the whole host anyway.
"""

import re

ARGUMENT_CHARACTERS_MAX = 1_024
LOOKED_AT_CHARACTERS_MAX = 1_280  # a secret across the cut is still seen whole
ARGUMENTS_MAX = 256
LINE_BYTES_MAX = (
    16_384  # of all arguments, after redaction: a run is told and recorded in one frame
)
CUT = "[redacted]"
_SECRET_NAME = re.compile(
    r"(?i)pass(?:w(?:or)?d|phrase)?|secret|token|(?:api|access|private)[_-]?key|credential"
    r"|auth(?:orization)?|cookie|session[_-]?id"
)
# a run of name characters is entered at its start alone: time stays linear in the argument
_ASSIGNED = re.compile(r"(-{0,2}([\w.-]++)\s*+[=:]\s*+)(.+)", re.DOTALL)
_FLAG = re.compile(r"-{1,2}[\w.-]+")
# what was cut counts as a secret's name: `Token token="…"`, whose `token=` went with the scheme
_INNER = re.compile(
    r"(?<![\w.-])([\w.-]++)[\"']?\s*+[=:]\s*+[\"']?"
    r"|\[redacted\](?:[\"']?\s*+[=:]\s*+[\"']?|[\"'](?=[^\s\"'&,;]))"
)
_VALUE = re.compile(r"[^\s\"'&,;]++")
_USERINFO = re.compile(r"(?<![a-zA-Z0-9+.-])([a-zA-Z][a-zA-Z0-9+.-]*+://)[^/@\s]++@")
_SCHEME = re.compile(r"(?i)\b(bearer|basic|token)\s++[A-Za-z0-9._~+/=-]{6,}+")
_KNOWN = re.compile(
    r"(?<![A-Za-z0-9_])(?:gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|xox[abprs]-[\w-]{10,}|AKIA[A-Z0-9]{12,}|sk-[\w-]{16,}|hv[sb]\.[\w-]{16,}"
    r"|eyJ[\w-]{8,}+\.[\w-]{8,}+\.[\w-]*+)"
)
_USER_FLAGS = frozenset({"-u", "--user", "--proxy-user", "-U"})


def redact(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command line for the record: bounded, and without what looks like a secret."""
    cut: list[str] = []
    hide_next = colon_next = False
    for index, argument in enumerate(argv[:ARGUMENTS_MAX]):
        text = argument[:LOOKED_AT_CHARACTERS_MAX]
        if hide_next:
            cut.append(CUT)
        elif colon_next and ":" in text:
            cut.append(f"{_redact_one(text.partition(':')[0], whole=True)}:{CUT}")
        else:
            cut.append(_redact_one(text, whole=text == argument))
        # also behind a hidden one: `--password-stdin --token …`
        hide_next = index > 0 and _is_secret_flag(text)
        colon_next = text in _USER_FLAGS
    if len(argv) > ARGUMENTS_MAX:
        cut.append(f"… {len(argv) - ARGUMENTS_MAX} more")
    return _bounded(cut)


def _bounded(shown: list[str]) -> tuple[str, ...]:
    """Return the arguments up to LINE_BYTES_MAX, with a mark for those that are left out."""
    left = LINE_BYTES_MAX
    for index, argument in enumerate(shown):
        left -= len(argument.encode("utf-8", "replace"))
        if left < 0:
            return (*shown[:index], f"… {len(shown) - index} more")
    return tuple(shown)


def _is_secret_flag(text: str) -> bool:
    return _FLAG.fullmatch(text) is not None and _SECRET_NAME.search(text) is not None


def _redact_one(text: str, *, whole: bool) -> str:
    text = _USERINFO.sub(rf"\1{CUT}@", text)
    text = _SCHEME.sub(rf"\1 {CUT}", text)
    text = _KNOWN.sub(CUT, text)
    assigned = _ASSIGNED.fullmatch(text)
    if assigned is not None and _SECRET_NAME.search(assigned[2]) is not None:
        text = assigned[1] + CUT
    elif whole:
        text = _redact_inner(text)
    else:  # the last part may have been the beginning of a secret: it is never shown
        text = _redact_inner(text)[: ARGUMENT_CHARACTERS_MAX - LOOKED_AT_CHARACTERS_MAX]
    if len(text) > ARGUMENT_CHARACTERS_MAX or not whole:
        text = f"{text[:ARGUMENT_CHARACTERS_MAX]}…"
    return text


def _redact_inner(text: str) -> str:
    """Cut the value behind each secret name, wherever it stands in the text."""
    pieces: list[str] = []
    done = 0
    for name in _INNER.finditer(text):
        is_secret = name[1] is None or _SECRET_NAME.search(name[1]) is not None
        if name.end() <= done or not is_secret:
            continue
        value = _VALUE.match(text, name.end())
        if value is not None:
            pieces += (text[done : name.end()], CUT)
            done = value.end()
    return "".join((*pieces, text[done:]))
