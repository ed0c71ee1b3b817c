"""Stores of earlier versions, brought up to this one. Only what is projected changes its form."""

import json

from sqlalchemy import Connection, bindparam, inspect, select, text
from sqlalchemy.schema import CreateColumn

from agent.collector import schema

OLDEST = 2  # the first schema that can be brought up
# schema → the columns that came with it; tables that came with it are made like all others
ADDED: dict[int, tuple[tuple[str, str], ...]] = {
    3: (
        ("operations", "statements"),
        ("operations", "effects"),
        ("operations", "rows"),
        ("operations", "result"),
    ),
    5: (("runs", "by_user"), ("runs", "by_subject")),
}
BY_USER = 5


def upgrade(connection: Connection, version: int) -> bool:
    """Add what a store of this version lacks; False when that can't be done.

    A column that is there already stays as it is: two processes may open the store at once.
    """
    if not OLDEST <= version <= schema.SCHEMA_VERSION:
        return False
    for number in range(version + 1, schema.SCHEMA_VERSION + 1):
        for table_name, column_name in ADDED.get(number, ()):
            there = {column["name"] for column in inspect(connection).get_columns(table_name)}
            if column_name not in there:
                column = schema.metadata.tables[table_name].c[column_name]
                written = CreateColumn(column).compile(dialect=connection.dialect)
                connection.execute(text(f"ALTER TABLE {table_name} ADD COLUMN {written}"))
    if version < BY_USER:
        _fill_by_user(connection)
    connection.execute(schema.meta.update().values(schema_version=schema.SCHEMA_VERSION))
    return True


def _fill_by_user(connection: Connection) -> None:
    """Make runs of earlier versions found by who started them; tokens came with this one."""
    runs = schema.runs
    rows = connection.execute(select(runs.c.host_id, runs.c.run_id, runs.c.initiator)).all()
    found = [
        {"key_host": row.host_id, "key": row.run_id, "name": str(by.get("user", ""))}
        for row in rows
        if isinstance(by := json.loads(row.initiator), dict)
    ]
    if found:
        mine = (runs.c.host_id == bindparam("key_host"), runs.c.run_id == bindparam("key"))
        statement = runs.update().where(*mine, runs.c.by_user == "")
        connection.execute(statement.values(by_user=bindparam("name")), found)
