"""DESIGN's diagram as a test: arrows point down only, and the pure parts stay pure."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pgproxy", "classifier", "approvals")
IMPURE = frozenset({"asyncio", "time", "logging", "random", "os"})
# Allowed beyond what the rules below say, each with its reason.
EXCEPTIONS = {
    ("pgproxy.protocol", "os"),  # PGPROXY_IMPL chooses the build before anything is imported
    ("classifier.implementation", "os"),  # likewise
    ("pgproxy.cli", "approvals.terminal"),  # mounts `pgproxy approvals`
    ("classifier.data.generate", "asyncio"),  # a developers' script that asks real servers; nothing imports it
    ("pgproxy.audit.filters", "classifier.model"),  # the contract's class names, to refuse a misspelt filter
}


def modules() -> dict[str, Path]:
    """Every module of the three packages by its name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(name: str, text: str | None = None) -> Iterator[str]:
    """What a module imports anywhere in it, lazily and for type checking too, as full names."""
    source = MODULES[name].read_text() if text is None else text
    package = name if name in MODULES and MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")
                base = ".".join([*above[: len(above) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in MODULES else base


def is_in(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def allowed(importer: str, imported: str) -> str | None:
    """None when the import is allowed, else the rule it breaks."""
    if (importer, imported) in EXCEPTIONS:
        return None
    top = imported.partition(".")[0]
    pure = is_in(importer, "pgproxy.protocol", "pgproxy.session", "pgproxy.policy", "pgproxy.records", "classifier")
    if pure and top in IMPURE:
        return "the pure part has no clock, loop, log, chance or environment"
    foreign = top not in sys.stdlib_module_names and not is_in(imported, "pgproxy.protocol")
    if is_in(importer, "pgproxy.protocol") and foreign:
        return "protocol is the standard library and itself"
    if top not in PACKAGES:
        return None
    return _own(importer, imported)


def _own(importer: str, imported: str) -> str | None:
    if is_in(imported, "classifier.data.generate"):
        return "a developers' script is no part of the program"
    if is_in(importer, "classifier"):
        return None if is_in(imported, "classifier") else "classifier knows neither sibling"
    if is_in(importer, "approvals"):
        return None if is_in(imported, "approvals") else "approvals knows neither sibling"
    if is_in(imported, "approvals") and not is_in(importer, "pgproxy.app"):
        return "only pgproxy.app knows approvals"
    if is_in(imported, "pgproxy.app") and not is_in(importer, "pgproxy.app", "pgproxy.cli"):
        return "nothing but the command knows the composition root"
    commands = ("pgproxy.cli", "pgproxy.cli_classify", "pgproxy.cli_policy")
    if is_in(imported, *commands) and not is_in(importer, *commands, "pgproxy.__main__"):
        return "nothing knows the command"
    below_session = (
        *("pgproxy.protocol", "pgproxy.session", "pgproxy.policy", "pgproxy.errors", "pgproxy.records"),
        "classifier",
    )
    if is_in(importer, "pgproxy.session") and not is_in(imported, *below_session):
        return "session knows protocol, policy and the classification"
    if is_in(importer, "pgproxy.policy") and not is_in(imported, "pgproxy.policy", "pgproxy.errors", "classifier"):
        return "policy knows the classification"
    upper = ("pgproxy.net", "pgproxy.supervisor", "pgproxy.config")
    if is_in(importer, "pgproxy.audit", "pgproxy.analysis", "pgproxy.store") and is_in(imported, *upper):
        return "audit, analysis and store are below the shell"
    if is_in(importer, "pgproxy.net") and is_in(imported, "pgproxy.audit", "pgproxy.supervisor", "pgproxy.config"):
        return "net is given its parts by the composition root"
    below_impact = ("pgproxy.impact", "pgproxy.dsn", "classifier")
    if is_in(importer, "pgproxy.impact") and not is_in(imported, *below_impact):
        return "impact knows the server and PostgreSQL's grammar"
    if is_in(imported, "classifier") and is_in(importer, "pgproxy.audit", "pgproxy.store", "pgproxy.supervisor"):
        return "these carry bytes and rows, not meaning"
    return None


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_down_only(name: str) -> None:
    broken = [f"{name} imports {i}: {rule}" for i in sorted(set(imports_of(name))) if (rule := allowed(name, i))]
    assert broken == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_module_has_a_docstring(name: str) -> None:
    docstring = ast.get_docstring(ast.parse(MODULES[name].read_text()))
    assert docstring and len(docstring) > 20, f"{MODULES[name]} does not say what it is for"


def test_all_three_packages_meet_only_in_the_composition_root() -> None:
    def siblings(name: str) -> set[str]:
        return {i.partition(".")[0] for i in imports_of(name)} & set(PACKAGES) - {"pgproxy"}

    meeting = {name for name in MODULES if siblings(name) == {"classifier", "approvals"}}
    assert all(is_in(name, "pgproxy.app") for name in meeting)


def test_every_package_is_looked_at() -> None:
    assert len(MODULES) > 60
    assert {name.partition(".")[0] for name in MODULES} == set(PACKAGES)


@pytest.mark.parametrize(
    ("importer", "text", "imported"),
    [
        ("approvals.new", "def f():\n    import pgproxy.store", "pgproxy.store"),
        ("approvals.new", "from classifier import model", "classifier.model"),
        ("classifier.new", "from pgproxy import errors", "pgproxy.errors"),
        ("classifier.new", "import os.path", "os.path"),
        ("pgproxy.session.new", "from time import monotonic", "time"),
        ("pgproxy.session.new", "from ..net import relay", "pgproxy.net.relay"),
        ("pgproxy.protocol.new", "import sqlglot", "sqlglot"),
        ("pgproxy.protocol.new", "import random", "random"),
        ("pgproxy.net.new", "from approvals.gateway import Gateway", "approvals.gateway"),
        ("pgproxy.net.new", "if TYPE_CHECKING:\n    import pgproxy.app", "pgproxy.app"),
        ("pgproxy.policy", "from pgproxy.session import gate", "pgproxy.session.gate"),
        ("pgproxy.audit.new", "from pgproxy.net import relay", "pgproxy.net.relay"),
        ("pgproxy.impact.new", "from pgproxy.session import gate", "pgproxy.session.gate"),
        ("pgproxy.impact.new", "from pgproxy.config import Settings", "pgproxy.config"),
    ],
)
def test_rules_catch_what_they_are_for(importer: str, text: str, imported: str) -> None:
    assert list(imports_of(importer, text)) == [imported]
    assert allowed(importer, imported) is not None


def test_rules_allow_what_the_diagram_draws() -> None:
    drawn = [
        ("pgproxy.app.worker", "approvals.gateway"),
        ("pgproxy.app.worker", "classifier"),
        ("pgproxy.net.relay", "pgproxy.session.machine"),
        ("pgproxy.session.gate", "pgproxy.policy"),
        ("pgproxy.session.gate", "pgproxy.protocol.framing"),
        ("pgproxy.policy", "classifier.model"),
        ("pgproxy.cli", "pgproxy.app.launch"),
        ("classifier.implementation", "os"),  # likewise
        ("pgproxy.protocol", "os"),
    ]
    assert [pair for pair in drawn if allowed(*pair)] == []
