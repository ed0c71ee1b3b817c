"""The tables of nodes are complete: held against the descriptor that libpg_query's package has."""

import importlib.util
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from agent.protocols.postgres.sql.classifying import RULES
from agent.protocols.postgres.sql.kinds import FIELDS, NEUTRAL, STATEMENTS
from agent.protocols.postgres.sql.library import PACKAGE
from agent.protocols.postgres.sql.walk import SPECIAL

# in the descriptor, and never in what the raw grammar gives
_NOT_RAW = {"RawStmt", "PLAssignStmt", "SetOperationStmt", "Query"}


def _messages() -> dict[str, descriptor_pb2.DescriptorProto]:
    spec = importlib.util.find_spec(PACKAGE)
    assert spec
    assert spec.submodule_search_locations
    data = Path(spec.submodule_search_locations[0], "pg_query.desc").read_bytes()
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(data).file
    return {message.name: message for message in file.message_type}


def _kind(field: descriptor_pb2.FieldDescriptorProto) -> str:
    return field.type_name.rpartition(".")[2]


MESSAGES = _messages()
KINDS = sorted(_kind(field) for field in MESSAGES["Node"].field)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith("Stmt")])
def test_every_statement_has_a_class(kind: str) -> None:
    """Each statement of the grammar stands in the table by name, as a command and effects."""
    if kind in _NOT_RAW:
        assert kind not in STATEMENTS
    elif kind != "ReturnStmt":  # of a function's body: says what stands in it
        assert STATEMENTS[kind][0].isupper()


def test_tables_name_real_nodes_once() -> None:
    """No table has a node that the grammar does not, and none is in two."""
    assert NEUTRAL | set(STATEMENTS) <= set(KINDS)
    assert not NEUTRAL & set(STATEMENTS)
    assert set(RULES) <= set(KINDS)
    assert not NEUTRAL & _NOT_RAW


def test_bare_fields_have_the_kind_that_the_table_says() -> None:
    """A field without a node's name around it is walked as what it is."""
    known = NEUTRAL | set(STATEMENTS) | set(RULES)
    neutral = known - set(RULES) - set(STATEMENTS)
    for name, message in MESSAGES.items():
        if name not in known:
            continue
        for field in message.field:
            kind = _kind(field)
            if not field.type_name or kind == "Node" or kind not in MESSAGES:
                continue
            walked = SPECIAL.get((name, field.json_name)) or FIELDS.get(field.json_name)
            if kind not in known:
                assert walked is None or walked in known, (name, field.json_name)
                continue
            assert walked == kind or {walked, kind} <= neutral, (name, field.json_name, kind)


def test_names_tell_nodes_from_fields() -> None:
    """Nodes begin with a capital, fields do not: so the JSON tree tells them apart."""
    assert all(kind[0].isupper() for kind in KINDS)
    for name, message in MESSAGES.items():
        if name != "Node":
            assert all(not field.json_name[0].isupper() for field in message.field), name
