"""What queries do, as rows: their effects, the tables they touch, and all of it as JSON."""

from collections.abc import Iterable
from typing import Any

from agent.pb import audit_pb2 as pb

RELATIONS_MAX = 256  # of one operation; its record has all
NAME_CHARACTERS_MAX = 255
# dangerous ones last; anything else that a host says is shown, and not found by a filter
EFFECTS = ("session", "read", "write", "ddl", "privilege", "admin", "unknown")
Row = dict[str, Any]


def effects_text(statements: Iterable[pb.Statement]) -> str:
    """Return `,read,write,`: effects of all statements and of what they call, for LIKE."""
    found = {effect for one in statements for effect in one.effects}
    found |= {call.effect for one in statements for call in one.calls}
    known = [effect for effect in EFFECTS if effect in found]
    return f",{','.join(known)}," if known else ""


def relations(statements: Iterable[pb.Statement]) -> list[Row]:
    """Return the tables that the statements touch, once each; written wins over read."""
    found: dict[tuple[str, str], bool] = {}
    for one in statements:
        for written, names in ((True, one.writes), (False, one.reads)):
            for name in names:
                key = name.schema[:NAME_CHARACTERS_MAX], name.name[:NAME_CHARACTERS_MAX]
                found[key] = found.get(key, False) or written
    return [
        {"schema_name": schema, "name": name, "written": written}
        for (schema, name), written in list(found.items())[:RELATIONS_MAX]
    ]


def document(one: pb.Statement) -> Row:
    """Return a statement for JSON."""
    return {
        "kind": one.kind,
        "effects": list(one.effects),
        "reads": [{"schema": each.schema, "name": each.name} for each in one.reads],
        "writes": [{"schema": each.schema, "name": each.name} for each in one.writes],
        "columns_read": [{"table": each.table, "name": each.name} for each in one.columns_read],
        "columns_written": [
            {"table": each.table, "name": each.name} for each in one.columns_written
        ],
        "calls": [
            {"schema": each.schema, "name": each.name, "effect": each.effect} for each in one.calls
        ],
        "unbounded": one.unbounded,
        "returns_rows": one.returns_rows,
        "why": one.why,
        "prepared": one.prepared,
        "settings": [
            {"name": each.name, "value": None if each.initial else each.value}
            for each in one.settings
        ],
    }
