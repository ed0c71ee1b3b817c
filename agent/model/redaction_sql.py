"""Redaction of SQL text that we record: literals that look like secrets are cut out.

`PASSWORD '…'` of CREATE and ALTER ROLE, `OPTIONS (password '…')`, passwords in connection strings
and URLs, wherever they stand, also within strings that a function runs. It errs towards cutting,
and takes time linear in the text. What is a secret by its place in a table is not known here:
`literals: normalize` of a rule keeps all literals out of the record.
"""

import re

from agent.model.redaction import CUT

_GAP = r"(?:\s|/\*[^*]{0,200}\*/|--[^\n]{0,200}\n){0,8}"
_NAME = r"(?:password|passwd|passphrase|secret|api_?key|access_?key|auth_?token)"
# a literal behind a secret's name, or behind a literal that is one (`set_config('api_key', '…')`)
_NAMED = re.compile(
    rf"""(?ix)
    \b{_NAME}\b (?: ["'] {_GAP} , | ["']? {_GAP} (?:=>|:=|=|\(|::) | ["']? ) {_GAP}
    (?: (?P<dollar>\$\w*\$) .*? (?:(?P=dollar)|\Z)
      | (?:e|u&|b|x)? (?P<quotes>'+)
    )""",
    re.DOTALL,
)
_QUOTE = re.compile(r"\\.|''|'", re.DOTALL)
# a connection string's `password=…`, up to a space, a quote or an ampersand
_ASSIGNED = re.compile(rf"(?i)\b{_NAME}[ \t]*=[ \t]*(?!\[redacted\])[^\s'\"&;,)$]+")
_URL = re.compile(r"\b([a-zA-Z][a-zA-Z0-9+.-]{0,31}://[^\s:/@'\"]{0,200}):[^\s@/'\"]{1,200}@")
# what a lower-case text without any secret has none of; IGNORECASE would take five times as long
_HINT = re.compile(r"passw|passphrase|secret|api_?key|access_?key|auth_?token|://")


def redact_sql(text: str) -> str:
    """Return the text with its secrets cut out; the same object when there is none to see."""
    if _HINT.search(text.lower()) is None:
        return text
    pieces: list[str] = []
    done = at = 0
    while (found := _NAMED.search(text, at)) is not None:
        at = found.end()
        if found["dollar"]:
            begin, end = found.start("dollar"), at
        else:
            # the next one may begin within: what looks like a literal may stand in a comment
            begin = found.start("quotes")
            end = _end_of_literal(text, at, len(found["quotes"]))
        if begin >= done:
            pieces += (text[done:begin], f"'{CUT}'")
        done = max(done, end)
    text = "".join((*pieces, text[done:]))
    text = _ASSIGNED.sub(_assigned, text)
    return _URL.sub(rf"\1:{CUT}@", text)


def _assigned(found: re.Match[str]) -> str:
    return f"{found[0].partition('=')[0]}={CUT}"


def _end_of_literal(text: str, at: int, opened: int) -> int:
    """Return where a literal ends that began before `at` with so many quotes.

    With one quote, two within are one of its characters. With several, the literal stands within
    another one: it ends at as many, or at the text's end. An even number may also be an empty
    literal, when nothing of it follows.
    """
    if opened > 1 and (at == len(text) or text[at] in " \t\r\n;,)"):
        return at
    if opened > 1:
        closing = text.find("'" * opened, at)
        return len(text) if closing < 0 else closing + opened
    while (quote := _QUOTE.search(text, at)) is not None:
        at = quote.end()
        if quote[0] == "'":
            return at
    return len(text)
