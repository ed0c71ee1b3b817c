"""What a rule for a target that speaks SQL matches."""

from collections.abc import Callable

from agent.model.sql import Effect
from agent.model.verdict import Literals
from agent.policy.document import Node
from agent.policy.errors import Place
from agent.policy.reading import Fields, Problems, choice, flag, number, one_or_more, unknown
from agent.policy.schema import SqlRulePolicy
from agent.policy.sql_names import check_name_pattern

NAMES_MAX = 100  # of one list
SQL_KEYS = (
    "effects", "tables", "schemas", "columns", "functions", "unbounded", "max_rows", "literals",
)  # fmt: skip
_NAMING = ("effects", "tables", "schemas", "columns", "functions", "unbounded")
EFFECTS = tuple(each.value for each in Effect)
_LITERALS = choice(*(each.value for each in Literals))
_Placed = tuple[tuple[Place, str], ...]


def read_sql_match(effect: str) -> Callable[[Node, Problems], SqlRulePolicy]:
    """Return a reader of what an "allow" or "deny" rule matches."""

    def read(node: Node, problems: Problems) -> SqlRulePolicy:
        fields = Fields(node, "what a rule matches", SQL_KEYS, problems)
        _check_keys(fields, effect, problems)
        return SqlRulePolicy(
            fields.optional("effects", _effects, None),
            fields.optional("tables", _names(2), None),
            fields.optional("schemas", _names(1), None),
            fields.optional("columns", _names(2), None),
            fields.optional("functions", _names(2), None),
            fields.optional("unbounded", _unbounded(effect), None),
            fields.optional("max_rows", _max_rows, 0),
            Literals(fields.optional("literals", _LITERALS, "keep")),
        )

    return read


def _check_keys(fields: Fields, effect: str, problems: Problems) -> None:
    if effect == "allow" and "effects" not in fields:
        text = f"an allow rule names its effects, of {', '.join(EFFECTS)}"
        problems.add(fields.place, text)
    elif not any(key in fields for key in _NAMING):
        text = f"name one of {', '.join(_NAMING)}; 'effects: []' in deny is everything"
        problems.add(fields.place, text)
    if effect == "deny" and "max_rows" in fields:
        fields.problem("max_rows", "max_rows limits what a rule allows: it stands in allow")


def _effects(node: Node, problems: Problems) -> tuple[Effect, ...]:
    found = _listed(node, problems)
    for place, written in found:
        if written and written not in EFFECTS:
            problems.add(place, unknown("effect", written, EFFECTS))
    return tuple(Effect(written) for _, written in found if written in EFFECTS)


def _names(parts_max: int) -> Callable[[Node, Problems], tuple[str, ...]]:
    def read(node: Node, problems: Problems) -> tuple[str, ...]:
        found = _listed(node, problems)
        for place, written in found:
            objection = check_name_pattern(written, parts_max) if written else None
            if objection is not None:
                problems.add(place, objection)
        return tuple(written for _, written in found)

    return read


def _listed(node: Node, problems: Problems) -> _Placed:
    found = one_or_more(node, problems)
    if len(found) > NAMES_MAX:
        problems.add(node.place, f"more than {NAMES_MAX} in one list")
        return ()
    return found


def _unbounded(effect: str) -> Callable[[Node, Problems], bool | None]:
    def read(node: Node, problems: Problems) -> bool | None:
        given = flag(node, problems)
        if effect == "deny" and not given:
            problems.add(node.place, "a deny rule says unbounded: true, or nothing of it")
        return given

    return read


def _max_rows(node: Node, problems: Problems) -> int:
    rows = number(node, problems)
    if rows == 0:
        problems.add(node.place, "max_rows is 1 or more; without it there is no limit")
    return rows
