"""What a completed command does to names: SQL's PREPARE, DEALLOCATE, DISCARD, and transactions."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from agent.model.sql import Classified, Effect, Statement, unknown
from agent.protocols.postgres.names import Names, Portal, Prepared
from agent.protocols.postgres.recording import prepare
from agent.protocols.postgres.requests import NAME_BYTES
from agent.protocols.postgres.step import Step

_FIRST = frozenset("PDCR")  # of the tags that matter here
_NAMING = frozenset({"PREPARE", "DEALLOCATE", "DEALLOCATE ALL"})  # they run nothing by its name
_CURSORS = frozenset({"FETCH", "MOVE"})
_PORTALS = frozenset({"DECLARE", "CLOSE"})  # what they name is a portal
_BY_NAME = "it runs a prepared statement"  # why the classifier can't know what EXECUTE does
_NOBODY_KNOWS = unknown("it runs a prepared statement of a name that is not known").statements


def sql_name(name: str) -> bytes:
    """Return the key of a name that SQL text gives."""
    return name.encode()[:NAME_BYTES]


def note_names(step: Step, tag: str, statements: Names[Prepared], portals: Names[Portal]) -> None:
    """Change the names as the server did when it said this command tag."""
    if tag[:1] not in _FIRST or not tag:
        return
    statement = _statement(step)
    if tag == "PREPARE":
        if statement is not None and statement.kind == "PREPARE" and statement.prepared:
            statements.set(sql_name(statement.prepared), inner(step, statement))
    elif tag == "DEALLOCATE":
        if statement is not None and statement.kind == "DEALLOCATE" and statement.prepared:
            statements.set(sql_name(statement.prepared), None)
        else:
            statements.clear()
    elif tag in {"DECLARE CURSOR", "CLOSE CURSOR", "CLOSE CURSOR ALL"}:
        _forget_portal(statement, portals)
    elif tag in {"DEALLOCATE ALL", "DISCARD ALL"}:
        statements.clear()
        if tag == "DISCARD ALL":
            portals.clear()
    elif tag in {"COMMIT", "ROLLBACK", "PREPARE TRANSACTION"} and not (
        statement is not None and statement.kind.startswith("ROLLBACK TO")
    ):
        portals.clear()


def _forget_portal(statement: Statement | None, portals: Names[Portal]) -> None:
    """A cursor takes a portal's name, or leaves it: what Bind made of that name is gone."""
    if statement is not None and statement.kind in _PORTALS and statement.prepared:
        portals.set(sql_name(statement.prepared), None)
    else:  # CLOSE ALL
        portals.clear()


def _statement(step: Step) -> Statement | None:
    """Return the statement of the step's text that was completed now."""
    if step.prepared is None:
        return None
    found = step.prepared.classified.statements
    return found[step.result] if step.result < len(found) else None


def inner(step: Step, statement: Statement) -> Prepared:
    """Return what a PREPARE makes: the text that is known is that of the PREPARE."""
    assert step.prepared is not None  # its statement was found in it
    classified = step.prepared.classified
    return prepare(step.prepared.text, classified, (statement,))


def server_version(parameters: Mapping[str, str]) -> int:
    """Return the server's major version as it told it; 0, older than any, if it did not."""
    found = re.match(r"\d{1,4}", parameters.get("server_version", ""), re.ASCII)
    return int(found[0]) if found else 0


def as_heard(classified: Classified, version: int) -> Classified:
    """Return what a server of this version makes of a text: what it has words for is no call."""
    return replace(
        classified,
        statements=tuple(
            replace(one, calls=tuple(call for call in one.calls if not 0 < call.since <= version))
            for one in classified.statements
        ),
    )


def resolve(
    given: tuple[Statement, ...],
    run_by_name: Callable[[str], tuple[Statement, ...]],
    portals: Names[Portal],
) -> tuple[Statement, ...]:
    """Return a text's statements, with what is run by name as what it runs.

    run_by_name: what a name stands for, () when nobody knows; it may raise NotYet.
    """
    if not any(statement.prepared or statement.kind in _CURSORS for statement in given):
        return given
    made: dict[str, tuple[Statement, ...]] = {}
    found: list[Statement] = []
    for statement in given:
        if statement.kind in _CURSORS:
            # FETCH may run a portal that Bind made, whatever its statement is
            found.append(statement)
            for portal in portals.named():
                found += _NOBODY_KNOWS if portal.prepared is None else portal.prepared.statements
        elif statement.kind in _PORTALS:
            found.append(statement)
        elif statement.kind in _NAMING or not statement.prepared:
            found.append(statement)
            made[statement.prepared] = (statement,)
        else:
            inner = made.get(statement.prepared) or run_by_name(statement.prepared)
            found.append(_as_run(statement, inner))
    return tuple(found)


def _as_run(statement: Statement, inner: tuple[Statement, ...]) -> Statement:
    """Return an EXECUTE with all that its prepared statement does."""
    if not inner:
        return replace(statement, why=_NOBODY_KNOWS[0].why)
    effects = frozenset[Effect]().union(*(one.effects for one in inner))
    if statement.kind != "EXECUTE" or statement.why != _BY_NAME:
        effects |= statement.effects
    else:
        effects |= statement.effects - {Effect.UNKNOWN}
    return replace(
        statement,
        effects=effects,
        reads=sum((one.reads for one in inner), statement.reads),
        writes=sum((one.writes for one in inner), statement.writes),
        columns_read=sum((one.columns_read for one in inner), statement.columns_read),
        columns_written=sum((one.columns_written for one in inner), statement.columns_written),
        calls=sum((one.calls for one in inner), statement.calls),
        unbounded=statement.unbounded or any(one.unbounded for one in inner),
        returns_rows=statement.returns_rows or any(one.returns_rows for one in inner),
        why=next((one.why for one in inner if one.why), ""),
        settings=sum((one.settings for one in inner), statement.settings),
    )
