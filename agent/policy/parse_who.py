"""Who may start a loop: local users, units and containers of this host, and identity tokens."""

import re
from collections.abc import Mapping as Of

from agent.policy.document import Mapping, Node, Scalar, Sequence
from agent.policy.parse_issuer import audience, default_issuer, issuer_url
from agent.policy.reading import (
    Fields,
    Problems,
    choice,
    entries,
    items,
    kind,
    number,
    text,
    unknown,
)
from agent.policy.schema import Claim, Container, Group, Issuer, Token, Uid, Unit, User, Who

WHO_MAX = 100
CLAIMS_MAX = 16  # of one entry
VALUES_MAX = 100  # of one claim
VALUE_CHARACTERS_MAX = 512
STARS_MAX = 8  # of one value
WHO_KEYS = ("user", "group", "uid", "unit", "container", "issuer", "audience", "claims")
KINDS = WHO_KEYS[:6]
CONTAINER_KEYS = ("runtime", "id", "parent", "pod")
RUNTIMES = ("docker", "podman", "containerd", "crio")
CHECKED = ("iss", "aud", "exp", "nbf", "iat", "jti")  # of every token
_ONE_OF = f"an entry of who has one of {', '.join(KINDS)}"
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.(service|scope)")
_ID = re.compile(r"[0-9a-f]{12,64}")
_POD = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}")
_PARENT = re.compile(r"(/[A-Za-z0-9:_.\\@-]{1,255}){1,16}")
_NO_CLAIMS: tuple[Claim, ...] = ()
_RUNTIME = choice(*RUNTIMES)


def read_who(node: Node, problems: Problems, issuers: Of[str, Issuer]) -> tuple[Who, ...]:
    """Return the entries; an empty list is nobody (but root). issuers are declared, by name."""
    nodes = items(node, "who", problems)
    if len(nodes) > WHO_MAX:
        problems.add(node.place, f"who has more than {WHO_MAX} entries")
        return ()
    return tuple(who for each in nodes if (who := _who(each, problems, issuers)) is not None)


def _who(node: Node, problems: Problems, issuers: Of[str, Issuer]) -> Who | None:
    fields = Fields(node, "an entry of who", WHO_KEYS, problems)
    given = [key for key in KINDS if key in fields]
    if len(given) != 1:
        problems.add(node.place, _ONE_OF)
        return None
    for key in ("audience", "claims"):
        if key in fields and given != ["issuer"]:
            fields.problem(key, f"{key} goes with an issuer")
    match given[0]:
        case "uid":
            return Uid(fields.optional("uid", number, 0))
        case "unit":
            return Unit(fields.optional("unit", _unit, ""))
        case "container":
            return fields.optional("container", _container, None)
        case "issuer":
            return _token(fields, issuers)
        case other:
            name = fields.optional(other, text, "")
            return User(name) if other == "user" else Group(name)


def _unit(node: Node, problems: Problems) -> str:
    written = text(node, problems)
    if written and not _UNIT.fullmatch(written):
        problems.add(node.place, "a unit's name ends in .service or .scope, without a path")
        return ""
    return written


def _container(node: Node, problems: Problems) -> Container:
    fields = Fields(node, "a container", CONTAINER_KEYS, problems)
    found = {}
    for key, form, said in (
        ("id", _ID, "12 to 64 digits 0-9, a-f: its id, or how that begins"),
        ("parent", _PARENT, "the cgroup above it, such as /ci.slice"),
        ("pod", _POD, "a pod's uid, 0-9 and a-f with dashes"),
    ):
        found[key] = fields.optional(key, text, "")
        if found[key] and not form.fullmatch(found[key]):
            fields.problem(key, f"{key} is {said}")
    runtime = fields.required("runtime", _RUNTIME, RUNTIMES[0])
    return Container(runtime, found["id"], found["parent"], found["pod"].replace("-", ""))


def _token(fields: Fields, issuers: Of[str, Issuer]) -> Token | None:
    def read(node: Node, problems: Problems) -> Issuer | None:
        return _issuer(node, problems, issuers)

    issuer = fields.optional("issuer", read, None)
    whom = fields.optional("audience", audience, "")
    wanted = fields.required("claims", _claims, _NO_CLAIMS)
    return None if issuer is None else Token(issuer.url, whom or issuer.audience, wanted)


def _issuer(node: Node, problems: Problems, issuers: Of[str, Issuer]) -> Issuer | None:
    """Return the issuer of a URL, or of the name of a declared one (which has no colon)."""
    written = text(node, problems)
    if not written or written in issuers:
        return issuers.get(written)
    if ":" in written:
        url = issuer_url(node, problems)
        declared = (one for one in issuers.values() if one.url == url)
        return next(declared, default_issuer(url)) if url else None
    known = unknown("issuer", written, tuple(sorted(issuers))) if issuers else "none is declared"
    problems.add(node.place, f"{known}; or write its URL")
    return None


def _claims(node: Node, problems: Problems) -> tuple[Claim, ...]:
    found = list(entries(node, "claims", problems))
    if isinstance(node, Mapping) and not found:
        problems.add(node.place, "name a claim: without one, every token of the issuer will do")
    if len(found) > CLAIMS_MAX:
        problems.add(node.place, f"an entry has at most {CLAIMS_MAX} claims")
    for key, _ in found:
        if key.text in CHECKED:
            problems.add(key.place, f"{key.text} is checked in every token; it is no rule")
        elif not key.text or len(key.text) > VALUE_CHARACTERS_MAX or not key.text.isprintable():
            problems.add(key.place, "a claim's name is printable, on one line and not long")
    return tuple(Claim(key.text, _values(value, problems)) for key, value in found[:CLAIMS_MAX])


def _values(node: Node, problems: Problems) -> tuple[str | bool, ...]:
    nodes = node.items if isinstance(node, Sequence) else (node,)
    if len(nodes) > VALUES_MAX:
        problems.add(node.place, f"a claim has at most {VALUES_MAX} values")
        return ()
    return tuple(_value(each, problems) for each in nodes)


def _value(node: Node, problems: Problems) -> str | bool:
    if not isinstance(node, Scalar):
        problems.add(node.place, f"a claim's value is a text or a list of texts, not {kind(node)}")
        return ""
    if node.plain and node.text in {"true", "false"}:
        return node.text == "true"
    written = text(node, problems)
    if len(written) > VALUE_CHARACTERS_MAX or written.count("*") > STARS_MAX:
        most = f"{VALUE_CHARACTERS_MAX} characters, {STARS_MAX} of them '*'"
        problems.add(node.place, f"a claim's value has at most {most}")
        return ""
    return written
