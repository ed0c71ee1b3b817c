"""What a function does, by its name as the text has it.

An unqualified name is looked up as the server does it when no schema before pg_catalog has a
function of that name. Operators, casts, types' input functions, and functions of a table's own
row type that are written like its columns (`t.f`), count as reads: only the database knows them.
Where it has such functions that do more, or its own `lower`, the role's grants are the floor.
"""

from agent.model.sql import Effect
from agent.protocols.postgres.sql.danger import ANYWHERE_PREFIXES, BUILT_IN, INFORMATION_SCHEMA
from agent.protocols.postgres.sql.reading import READING
from agent.protocols.postgres.sql.rows import ROWS


def effect_of(schema: str, name: str) -> Effect:
    """Return the effect of calling this function; UNKNOWN if the lists do not have it.

    set_config's depends on its arguments: `settings` knows.
    """
    if name.startswith(ANYWHERE_PREFIXES):
        return Effect.ADMIN
    if schema in {"", "pg_catalog"}:
        effect = BUILT_IN.get(name)
        if effect is not None:
            return effect
        return Effect.READ if name in READING else Effect.UNKNOWN
    if schema == "information_schema" and name in INFORMATION_SCHEMA:
        return Effect.READ
    return Effect.UNKNOWN


def returns_row(schema: str, name: str) -> bool:
    """Whether the result is known to be a row, so that `(f(x)).field` is no call."""
    if schema == "information_schema":
        return name == "_pg_expandarray"
    return schema in {"", "pg_catalog"} and name in ROWS
