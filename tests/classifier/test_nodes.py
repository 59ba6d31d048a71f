"""The allow-list against the grammar's own description of its nodes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from classifier.nodes import AFTER_ANALYSIS, ENUMS, NODES
from classifier.statements import ALSO, PARTS, STATEMENTS

_NOT_NODES = {"Node", "ParseResult", "ScanResult", "ScanToken", "SummaryResult"}


@pytest.fixture(scope="module")
def grammar() -> Any:
    path = import_module("postgast").__path__[0]
    described = descriptor_pb2.FileDescriptorSet()
    described.ParseFromString(Path(path, "pg_query.desc").read_bytes())
    (file,) = described.file
    return file


def test_every_node_of_the_grammar_is_considered(grammar: Any) -> None:
    theirs = {m.name for m in grammar.message_type} - _NOT_NODES
    assert theirs == set(NODES) | AFTER_ANALYSIS


def test_no_node_is_both_raw_and_analysed() -> None:
    assert not set(NODES) & AFTER_ANALYSIS


def test_every_statement_of_the_grammar_has_a_considered_class(grammar: Any) -> None:
    theirs = {m.name for m in grammar.message_type if m.name.endswith("Stmt")}
    assert theirs == set(STATEMENTS) | PARTS
    assert set(ALSO) <= set(STATEMENTS)
    assert not set(STATEMENTS) & PARTS


def test_listed_fields_exist_and_hold_what_the_table_says(grammar: Any) -> None:
    messages = {m.name: {f.json_name: f for f in m.field} for m in grammar.message_type}
    for name, fields in NODES.items():
        for field, spec in fields.items():
            if field == "location":
                continue
            theirs = messages[name][field]
            type_name = theirs.type_name.rsplit(".", 1)[-1]
            if spec.kind == "nodes":
                assert type_name == "Node", (name, field)
            elif spec.kind == "bare":
                assert type_name == spec.type, (name, field)
                assert theirs.label != theirs.LABEL_REPEATED, (name, field)
            elif spec.kind == "enum":
                assert type_name == spec.type, (name, field)
            else:
                assert theirs.type not in (theirs.TYPE_MESSAGE, theirs.TYPE_ENUM), (name, field)


def test_listed_values_exist(grammar: Any) -> None:
    theirs = {e.name: {v.name for v in e.value} for e in grammar.enum_type}
    for name, values in ENUMS.items():
        assert values <= theirs[name], name


def test_no_enum_allows_the_undefined_value() -> None:
    assert not [v for values in ENUMS.values() for v in values if v.endswith("_UNDEFINED")]
