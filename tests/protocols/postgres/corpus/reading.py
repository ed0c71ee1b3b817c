"""The statements of this folder, and what a classification of them amounts to."""

from collections.abc import Iterator
from pathlib import Path

from agent.model.sql import Classified, Effect
from agent.protocols.postgres.sql import touches_pinned

HERE = Path(__file__).parent
SEPARATOR = "\n;;\n"
_LETTERS = {
    Effect.READ: "",
    Effect.SESSION: "",
    Effect.DDL: "D",
    Effect.WRITE: "W",
    Effect.PRIVILEGE: "P",
    Effect.ADMIN: "A",
    Effect.UNKNOWN: "U",
}


def nasty() -> list[tuple[str, str]]:
    """Return (what is expected, text) of each dangerous statement."""
    lines = HERE.joinpath("nasty.tsv").read_text(encoding="utf-8").splitlines()
    found = [line.split("\t", 1) for line in lines if line and line[0] not in "#="]
    return [(expected, text) for expected, text in found]


def benign() -> list[tuple[str, str]]:
    """Return (where it is from, text) of each harmless statement."""
    found = []
    for path in sorted(HERE.joinpath("benign").glob("*.sql")):
        _, _, text = path.read_text(encoding="utf-8").partition("\n")
        found += [(path.stem, each.strip("\n")) for each in text.strip("\n").split(SEPARATOR)]
    return found


def variants(text: str) -> Iterator[str]:
    """The same statements, written otherwise."""
    yield f"  \t\r\n{text}\n;"
    yield f"/* SELECT 1; /* nested */ -- */ {text}"
    yield f"-- SELECT 1\n{text} -- x"
    yield f"SELECT 1; {text}"
    yield f"{text}\n; SELECT 'x'"
    if not set(text) & set("'\"$\\"):
        yield text.lower()
        yield text.swapcase()
        yield text.replace(" ", "/**/\n")
        yield text.replace(" ", " --x\n\v\f")


def danger(found: Classified) -> str:
    """Sum up in the corpus's letters: "DW!#"."""
    effects = {effect for each in found.statements for effect in each.effects}
    effects |= {call.effect for each in found.statements for call in each.calls}
    letters = "".join(sorted(_LETTERS[effect] for effect in effects))
    bound = "!" if any(each.unbounded for each in found.statements) else ""
    if any(touches_pinned(each, read_only=False) for each in found.statements):
        return f"{letters}{bound}#"
    soft = any(touches_pinned(each, read_only=True) for each in found.statements)
    return f"{letters}{bound}{'%' if soft else ''}"
