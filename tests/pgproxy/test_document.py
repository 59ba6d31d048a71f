"""Documents: every value knows its line, and nothing is lost on the way."""

from __future__ import annotations

import sys

import pytest

from pgproxy.document import Document, DocumentError, dotted, parse

TEXT = """\
# a comment
listen: 127.0.0.1:6432
agents:
  - name: one
    on: yes
  - {name: two}
"""


def refusal(text: str | bytes) -> str:
    with pytest.raises(DocumentError) as caught:
        parse(text if isinstance(text, str) else text.decode("latin-1"), "f.yaml")
    return str(caught.value)


def test_every_value_knows_its_line() -> None:
    document = parse(TEXT, "f.yaml")
    assert document.data == {"listen": "127.0.0.1:6432", "agents": [{"name": "one", "on": True}, {"name": "two"}]}
    lines = {dotted(place): line for place, (_, line) in document.marks.items()}
    assert lines["listen"] == 2
    assert lines["agents[0].on"] == 5  # the key as written, though YAML 1.1 reads it as a truth value
    assert lines["agents[1].name"] == 6


def test_missing_key_is_blamed_on_what_should_hold_it() -> None:
    document = parse(TEXT, "f.yaml")
    assert str(document.problem(("agents", 1, "owner"), "is required")) == "f.yaml:6: agents[1].owner: is required"
    assert str(Document("env X", {}).problem((), "not YAML")) == "env X: not YAML"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: a: said twice"),
        ("x:\n  - a: 1\n    a: 2\n", "f.yaml:3: x[0].a: said twice"),
        ("- a\n", "f.yaml:1: the document must be a mapping"),
        ("just text", "f.yaml:1: the document must be a mapping"),
        ("? [a]\n: b\n", "f.yaml:1: a key must be a word"),
        ("a: &x [*x]\n", "f.yaml:1: a[0]: an anchor that contains itself"),
        ("a: 1\nb: }\n", "f.yaml:2: not YAML: "),
        ("a: 1\n--- \nb: 2\n", "f.yaml:2: not YAML: "),
        ("a: \x00", "f.yaml: not YAML: an unreadable character"),
        ("a: 2024-99-99\n", "f.yaml:1: a: a value YAML cannot read; quote it"),
        ("a: !!python/object:os.system x\n", "f.yaml:1: not YAML: could not determine a constructor"),
    ],
)
def test_what_cannot_be_used_is_refused(text: str, expected: str) -> None:
    assert refusal(text).startswith(expected)


def test_deep_nesting_is_refused() -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)  # the default, which other tests in this process may have raised
    try:
        assert refusal("a: " + "[" * 20_000) == "f.yaml: nested too deeply"
    finally:
        sys.setrecursionlimit(before)


def test_shared_anchors_are_fine_and_an_empty_document_is_empty() -> None:
    assert parse("a: &x [1]\nb: *x\n", "f").data == {"a": [1], "b": [1]}
    assert parse("", "f").data == {}
    assert parse("# nothing\n", "f").data == {}
