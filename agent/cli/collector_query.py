"""What one query looks like to a person: its text in one line, and what it did."""

import re
from typing import Any

from agent.cli.collector_text import Paint, clean, duration

Row = dict[str, Any]
TAIL_CHARACTERS_MAX = 160  # of a text in `tail`
SHOW_CHARACTERS_MAX = 2_000  # of a text in `sessions show`; --json has all that is kept
VALUES_SHOWN_MAX = 16
VALUE_CHARACTERS_MAX = 80
TABLES_SHOWN_MAX = 8
_BLANKS = re.compile(r"\s+")
_DANGER = {"read": "", "session": "dim", "write": "yellow"}  # what is not here is red


def is_query(row: Row) -> bool:
    """Whether an operation is a query, not a request."""
    return bool(row.get("statements"))


def one_line(text: str, characters_max: int) -> str:
    """Return a text on one line, cut with an ellipsis, without what could steer a terminal."""
    # what is cut off need not be looked at
    line = _BLANKS.sub(" ", text[: 2 * characters_max]).strip()
    if len(line) > characters_max or len(text) > 2 * characters_max:
        line = line[: characters_max - 1] + "…"
    return clean(line)


def what(row: Row, characters_max: int) -> str:
    """Return what was asked, in one line: a query's text, or the verb and what it is for."""
    if is_query(row):
        return one_line(row["resource"], characters_max)
    return clean(f"{row['verb']} {row['resource']}".strip())


def did(row: Row, paint: Paint) -> str:
    """Return a query's effects, dangerous ones coloured, its rows and how long it took."""
    names = [name for name in row["effects"].split(",") if name]
    found = "+".join(paint(clean(name), _DANGER.get(name, "red")) for name in names)
    if row["outcome"] in (None, "denied"):
        return found
    return f"{found}  {_rows(row)}  {duration(row['duration_ns'])}"


def code(row: Row) -> str:
    """Return the server's own word on the outcome: an SQLSTATE says that it is one."""
    status: str = row["status"]
    return f"SQLSTATE {status}" if status and row["protocol"] == "postgres" else status


def facts(row: Row) -> list[str]:
    """Return what is known of a query, in a few lines."""
    lines = []
    for number, statement in enumerate(row["statements"], 1):
        said = _statement(statement)
        which = f"{number}. " if len(row["statements"]) > 1 else ""
        lines.append(f"{which}{statement['kind'] or 'not parsed'}: {', '.join(said) or 'nothing'}")
    values = [pair for pair in row["attributes"] if pair[0].startswith("$")]
    if values:
        lines.append("values: " + ", ".join(_value(*pair) for pair in values[:VALUES_SHOWN_MAX]))
        if len(values) > VALUES_SHOWN_MAX:
            lines[-1] += f", … {len(values) - VALUES_SHOWN_MAX} more"
    return [clean(line) for line in lines]


def result(row: Row) -> list[str]:
    """Return rows, the server's command tag and the transaction's state."""
    said = dict(row["result"])
    found = [_rows(row)]
    found += [f"tag {said['command_tag']}"] if said.get("command_tag") else []
    state = _STATES.get(said.get("transaction_state", ""), "")
    return found + ([state] if state else [])


def _rows(row: Row) -> str:
    return f"{row['rows']} {'row' if row['rows'] == 1 else 'rows'}"


_STATES = {"I": "", "T": "in a transaction", "E": "in a failed transaction"}


def _statement(one: Row) -> list[str]:
    found = [" + ".join(one["effects"])]
    for verb in ("reads", "writes"):
        names = [_name(each["schema"], each["name"]) for each in one[verb]]
        found += [f"{verb} {_some(names)}"] if names else []
    called = [_name(each["schema"], each["name"]) for each in one["calls"]]
    found += [f"calls {_some(called)}"] if called else []
    found += ["every row"] if one["unbounded"] else []
    found += [one["why"]] if one["why"] else []
    return found


def _name(schema: str, name: str) -> str:
    return f"{schema}.{name}" if schema else name


def _some(names: list[str]) -> str:
    more = len(names) - TABLES_SHOWN_MAX
    return ", ".join(names[:TABLES_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def _value(name: str, value: str) -> str:
    cut = value if len(value) <= VALUE_CHARACTERS_MAX else value[: VALUE_CHARACTERS_MAX - 1] + "…"
    return f"{name} = {cut}" if value or " " not in name else name
