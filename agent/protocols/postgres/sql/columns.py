"""Which columns the text reads, once the whole statement has been seen.

A qualifier that stands for a relation is given as that relation's name. Attribute notation is
also a way to call a function of one argument, `('seq'::regclass).nextval`: what is no field is
a call. `t.to_json` is to_json of the whole row, unless t has a column of that name: it counts as
both.
"""

from collections.abc import Collection

from agent.model.sql import Column, Effect
from agent.protocols.postgres.sql.facts import Facts
from agent.protocols.postgres.sql.functions import effect_of
from agent.protocols.postgres.sql.rows import OF_ANY_ROW

STAR = "*"
MEANINGS_MAX = 16  # relations that one name stands for; of more, the column may be of any
_EXPAND = "_pg_expandarray"  # gives fields x and n, which drivers take out in an outer query
_MERELY = frozenset({Effect.READ, Effect.UNKNOWN})


def resolve(facts: Facts) -> None:
    """Turn references into columns read, and into calls where they are calls."""
    for parts in facts.references:
        *_, name = parts
        if len(parts) == 1:
            _bare(facts, name)
            continue
        qualifier = parts[-2]
        for table in _meanings(facts, qualifier) or (qualifier,):
            facts.columns_read[Column(table, name)] = None
            if name in OF_ANY_ROW:
                facts.columns_read[Column(table, STAR)] = None
        known = facts.functions.get(qualifier, (name,))
        if effect_of("", name) not in _MERELY or name not in {*known, STAR}:
            facts.call("", name)
    expanded = any(call.name == _EXPAND for call in facts.calls)
    for name in facts.fields:
        if expanded and name in {"x", "n"}:
            continue
        facts.call("", name)


def _bare(facts: Facts, name: str) -> None:
    """A name without qualifier is a column, or a relation's whole row."""
    for table in _meanings(facts, name):
        facts.columns_read[Column(table, STAR)] = None
    facts.columns_read[Column("", name)] = None


def _meanings(facts: Facts, name: str) -> Collection[str]:
    """The relations that a name stands for; "" is any: text must not cost its length's square."""
    found = facts.aliases.get(name, {})
    return found if len(found) <= MEANINGS_MAX else ("",)
