"""What a rule says of one statement: whether an allow rule covers it, whether a deny rule hits it.

Effects. A statement's effects are those of its syntax and those of the functions that it calls,
as the target's `functions` or else the built-in list say; `read` too when it returns or copies
what is in a table. To a deny rule it also reads when it looks at rows to find or change them. A
function that neither knows is `unknown`, and an unknown statement may do anything.

Allow. A rule covers a statement when all its effects are the rule's (`session` always is), and
every table, column and function that it names is one of the rule's, where the rule names any;
an unbounded UPDATE, DELETE or MERGE also needs `unbounded: true`. What can't be told is not
covered. A statement that is `session` and nothing else needs any allow rule of the target.

Deny. A rule hits a statement when each key of the rule is touched by something of the statement:
one effect, one table, one column, one function. A name without schema may be of any schema, `*`
may be any column, what alters objects and names no table may touch any, and an unknown statement
may be all of it.

A name without schema is of all schemas of the search_path that the target pins, if it pins one;
else its schema can't be told. A column without table is of the statement's only table, if it has
one. Views, triggers, cascades and the bodies of functions are not looked into.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from agent.model.grant import PostgresOptions, Rule, SqlMatch
from agent.model.sql import Call, Column, Effect, Relation, Statement
from agent.policy.sql_names import NamePattern, compile_name, split_name, write_name

# from harmless to dangerous; the rule that is recorded is the most dangerous statement's
DANGER = (
    Effect.SESSION, Effect.READ, Effect.WRITE, Effect.DDL, Effect.PRIVILEGE, Effect.ADMIN,
    Effect.UNKNOWN,
)  # fmt: skip
_RANK = {effect: rank for rank, effect in enumerate(DANGER)}
_CHANGING = frozenset(DANGER) - {Effect.SESSION, Effect.READ}
_STRUCTURAL = frozenset({Effect.DDL, Effect.PRIVILEGE, Effect.ADMIN})
_SESSION = frozenset({Effect.SESSION})
ANYTHING = "*"
CATALOG = "pg_catalog"  # its schema comes first in every search_path that does not name it
# it takes a number from a sequence, which is all that an INSERT's default does
_NEXT = frozenset({("", "nextval"), (CATALOG, "nextval")})
_Schemas = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """A statement as a rule sees it. effects are in force: with those of its functions."""

    statement: Statement
    effects: frozenset[Effect]
    relations: tuple[Relation, ...]
    columns: tuple[Column, ...]
    changing: tuple[Call, ...] = ()  # functions that change something no table's name tells

    @property
    def unknown(self) -> bool:
        """Whether nobody can tell what it does."""
        return Effect.UNKNOWN in self.effects

    @property
    def harmless(self) -> bool:
        """Whether it is of the session alone."""
        return self.effects == _SESSION and not self.relations

    @property
    def danger(self) -> int:
        """How dangerous its worst effect is."""
        return max(_RANK[effect] for effect in self.effects)


class Names:
    """What a target says of names: the pinned search_path, and what functions do."""

    def __init__(self, options: PostgresOptions) -> None:
        self.path = _pinned(dict(options.settings).get("search_path"))
        self._functions: Mapping[tuple[str, str], Effect] = {
            name: effect
            for written, effect in options.functions
            if (name := split_name(written)) is not None
        }

    def facts(self, statement: Statement) -> Facts:
        """Return a statement with its effects in force."""
        effects = statement.effects.union(map(self.effect_of, statement.calls))
        if _reads(statement):
            effects |= {Effect.READ}
        if any(self._is_told(made.schema, made.name) for made in statement.makes):
            effects |= {Effect.UNKNOWN}  # what the target says of it would no longer be so
        return Facts(
            statement,
            effects or frozenset({Effect.UNKNOWN}),
            tuple(dict.fromkeys(statement.reads + statement.writes)),
            tuple(dict.fromkeys(statement.columns_read + statement.columns_written)),
            tuple(
                call
                for call in statement.calls
                if self.effect_of(call) in _CHANGING and (call.schema, call.name) not in _NEXT
            ),
        )

    def _is_told(self, schema: str, name: str) -> bool:
        """Whether the target says what a function does that may be this one."""
        return any(
            name == told and (not schema or not where or schema == where)
            for where, told in self._functions
        )

    def decided(self, statement: Statement) -> Statement:
        """Return a statement for its record: with the effects of calls as they are decided on.

        It is the same object when the built-in list has them so. `read` is in it wherever a deny
        rule would see it.
        """
        calls = tuple(
            call
            if (effect := self.effect_of(call)) is call.effect
            else replace(call, effect=effect)
            for call in statement.calls
        )
        reads = bool(statement.reads) and Effect.READ not in statement.effects
        if calls == statement.calls and not reads:
            return statement
        effects = statement.effects | {Effect.READ} if reads else statement.effects
        return replace(statement, calls=calls, effects=effects)

    def effect_of(self, call: Call) -> Effect:
        """Return what a function does: as the target says, else as the built-in list does."""
        functions = self._functions
        if call.schema:
            listed = functions.get((call.schema, call.name))
            if listed is None and call.schema == "pg_catalog":
                listed = functions.get(("", call.name))
            return call.effect if listed is None else listed
        if ("", call.name) in functions:
            return functions["", call.name]
        said = [functions.get((schema, call.name)) for schema in self.path]
        known = [effect for effect in said if effect is not None]
        if not known or len(known) < len(said):
            return call.effect
        return max(known, key=_RANK.__getitem__)


def _reads(statement: Statement) -> bool:
    """Whether it shows what is in tables: by RETURNING, or by taking it from another table."""
    if statement.returns_rows and (statement.reads or statement.columns_read):
        return True
    return not set(statement.reads) <= set(statement.writes)


def _pinned(search_path: str | None) -> _Schemas:
    """Return the schemas of a pinned search_path; () when there is none or it depends on more."""
    found = []
    for part in (search_path or "").split(","):
        name = split_name(part.strip())
        if name is None or name[0] or name[1].startswith("$"):
            return ()
        found.append(name[1])
    return tuple(found)


class Matcher:
    """A rule for statements, compiled."""

    def __init__(self, rule: Rule, names: Names) -> None:
        """Compile the rule.

        Raises:
            ValueError: a pattern that check_name_pattern refuses.
        """
        self.rule = rule
        self.match = rule.sql or SqlMatch()
        self._path = names.path
        self._tables = tuple(map(compile_name, self.match.tables))
        self._schemas = tuple(map(compile_name, self.match.schemas))
        self._columns = tuple(map(compile_name, self.match.columns))
        self._functions = tuple(map(compile_name, self.match.functions))

    # allow

    def objection(self, facts: Facts) -> str | None:
        """Return why an allow rule does not cover a statement, None when it does."""
        if facts.harmless:
            return None
        checks: tuple[Callable[[Facts], str | None], ...] = (
            self._effects_objection,
            self._tables_objection,
            self._columns_objection,
            self._functions_objection,
        )
        for check in checks:
            objection = check(facts)
            if objection is not None:
                return objection
        if facts.statement.unbounded and not self.match.unbounded:
            said = "has no WHERE condition that could be false"
            if len(facts.relations) > 1:  # a name alone may be of any of them
                said += " (name the columns of the table that it changes with that table)"
            return f"{said}, which needs unbounded: true"
        return None

    def fit(self, facts: Facts) -> int:
        """Return how much of a statement's effects an allow rule has: to name the nearest rule."""
        return len(facts.effects & self._allowed)

    @property
    def _allowed(self) -> frozenset[Effect]:
        known = frozenset(Effect) - {Effect.UNKNOWN}
        return (self.match.effects or known) | {Effect.SESSION}

    def _effects_objection(self, facts: Facts) -> str | None:
        missing = facts.effects - self._allowed
        return f"has the effect {in_order(missing)[0]}" if missing else None

    def _tables_objection(self, facts: Facts) -> str | None:
        if not (self._tables or self._schemas):
            return None
        for relation in facts.relations:
            if not self._covers_relation(relation):
                return f"touches {write_name(relation.schema, relation.name)}"
        if not facts.relations and facts.statement.effects & _CHANGING:
            return "changes more than tables that it names"
        if facts.changing and not self._functions:
            called = write_name(facts.changing[0].schema, facts.changing[0].name)
            return f"calls {called}, which may change more than tables that it names"
        return None

    def _covers_relation(self, relation: Relation) -> bool:
        """A name whose schema can't be told is covered by patterns for any schema alone."""
        return all(
            _any_covers(self._tables, schema, relation.name)
            and (
                not self._schemas
                or any(
                    part.name.everything or (schema is not None and part.name.fits(schema))
                    for part in self._schemas
                )
            )
            for schema in self._schemas_of(
                relation.schema, catalogs=relation.name.startswith("pg_")
            )
        )

    def _schemas_of(self, schema: str, *, catalogs: bool) -> tuple[str | None, ...]:
        """catalogs: whether the server's own schema may have the name."""
        if schema or not self._path:
            return (schema or None,)
        return (CATALOG, *self._path) if catalogs else self._path

    def _columns_objection(self, facts: Facts) -> str | None:
        if not self._columns:
            return None
        tables = {relation.name for relation in facts.relations}
        only = next(iter(tables)) if len(tables) == 1 else None
        for column in facts.columns:
            table = column.table if column.table in tables else only
            if column.name == ANYTHING or not _any_covers(self._columns, table, column.name):
                return f"touches column {write_name(column.table, column.name)}"
        if facts.statement.effects & _CHANGING and not facts.statement.columns_written:
            return "changes more than columns that it names"
        return None

    def _functions_objection(self, facts: Facts) -> str | None:
        if not self._functions:
            return None
        for call in facts.statement.calls:
            schemas = self._schemas_of(call.schema, catalogs=call.effect is not Effect.UNKNOWN)
            if not all(_any_covers(self._functions, schema, call.name) for schema in schemas):
                return f"calls {write_name(call.schema, call.name)}"
        return None

    # deny

    def hit(self, facts: Facts) -> tuple[str, ...] | None:
        """Return what of a statement a deny rule means, None when it means something else.

        Of an unknown statement only what is known counts here: its caller asks `Facts.unknown`.
        """
        match = self.match
        asked: list[tuple[object, Callable[[Facts], str | None]]] = [
            (match.effects, self._hit_effect),
            (self._tables or self._schemas, self._hit_table),
            (self._columns, self._hit_column),
            (self._functions, self._hit_function),
            (match.unbounded, _hit_unbounded),
        ]
        said = [hit(facts) for key, hit in asked if key]
        found = tuple(one for one in said if one is not None)
        return found if len(found) == len(said) else None

    def _hit_effect(self, facts: Facts) -> str | None:
        effects = facts.effects
        if facts.statement.reads:
            effects |= {Effect.READ}  # also where it only finds rows by what it reads
        hit = effects & self.match.effects
        return f"has the effect {in_order(hit)[0]}" if hit else None

    def _hit_table(self, facts: Facts) -> str | None:
        for one in facts.relations:
            if self._touches_relation(one):
                return f"touches {write_name(one.schema, one.name)}"
        if not facts.relations and facts.statement.effects & _STRUCTURAL:
            return "may touch any table"  # DROP SCHEMA … CASCADE, GRANT … ON ALL TABLES
        if Column(ANYTHING, ANYTHING) in facts.columns:
            return "reads what is kept of any table"  # the server's statistics
        return None

    def _hit_function(self, facts: Facts) -> str | None:
        for one in facts.statement.calls:
            if _any_touched(self._functions, one.schema, one.name):
                return f"calls {write_name(one.schema, one.name)}"
        return None

    def _touches_relation(self, relation: Relation) -> bool:
        schema = relation.schema
        if self._schemas and schema and not any(one.name.fits(schema) for one in self._schemas):
            return False
        return not self._tables or _any_touched(self._tables, relation.schema, relation.name)

    def _hit_column(self, facts: Facts) -> str | None:
        tables = {relation.name for relation in facts.relations}
        columns = facts.columns
        if not columns and facts.statement.effects & _STRUCTURAL:
            # what alters a table alters its columns; what names none may alter any
            columns = (Column("" if tables else ANYTHING, ANYTHING),)
        for column in columns:
            for pattern in self._columns:
                named = column.table in tables or column.table == ANYTHING
                owners = {column.table} if named else tables
                if _touches_column(pattern, owners, column.name):
                    return f"touches column {write_name(column.table, column.name)}"
        return None


def in_order(effects: frozenset[Effect]) -> list[Effect]:
    """Return effects with the most dangerous first."""
    return sorted(effects, key=_RANK.__getitem__, reverse=True)


def _hit_unbounded(facts: Facts) -> str | None:
    return "has no WHERE condition that could be false" if facts.statement.unbounded else None


def _any_covers(patterns: tuple[NamePattern, ...], qualifier: str | None, name: str) -> bool:
    """Allow: no patterns mean any name; a qualifier that can't be told (None) fits `*` alone."""
    return not patterns or any(
        pattern.name.fits(name)
        and (
            pattern.qualifier is None
            or pattern.qualifier.everything
            or (qualifier is not None and pattern.qualifier.fits(qualifier))
        )
        for pattern in patterns
    )


def _any_touched(patterns: tuple[NamePattern, ...], qualifier: str, name: str) -> bool:
    """Deny: a qualifier that is not told may be any, and so may the name `*`."""
    return any(
        (name == ANYTHING or pattern.name.fits(name))
        and (pattern.qualifier is None or not qualifier or pattern.qualifier.fits(qualifier))
        for pattern in patterns
    )


def _touches_column(pattern: NamePattern, owners: set[str], name: str) -> bool:
    """Owners are the tables that the column may be of."""
    if name != ANYTHING and not pattern.name.fits(name):
        return False
    return pattern.qualifier is None or any(
        owner == ANYTHING or pattern.qualifier.fits(owner) for owner in owners
    )
