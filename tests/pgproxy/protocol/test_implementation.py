"""Choosing between sources and extensions, each time in an interpreter of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import pgproxy
import pgproxy.protocol

PACKAGE = Path(pgproxy.protocol.__file__).parent
IS_BUILT = any(PACKAGE.glob(f"framing*{EXTENSION_SUFFIXES[0]}"))


def run(script: str, impl: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    root = path or PACKAGE.parent.parent
    env = {**os.environ, "PGPROXY_IMPL": impl, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-c", script], env=env, cwd=root, text=True, capture_output=True, check=False
    )


TELL = "import pgproxy.protocol as p; from pgproxy.protocol import startup; print(p.implementation(), startup.__file__)"


def test_the_environment_is_obeyed() -> None:
    asked = os.environ.get("PGPROXY_IMPL")
    assert pgproxy.protocol.implementation() == asked if asked else True


def test_python_takes_the_sources_even_beside_extensions() -> None:
    done = run(TELL, "python")
    assert done.stdout.split() == ["python", str(PACKAGE / "startup.py")], done.stderr


def test_compiled_takes_extensions_or_fails() -> None:
    done = run(TELL, "compiled")
    if IS_BUILT:
        form, file = done.stdout.split()
        assert form == "compiled" and file.endswith(EXTENSION_SUFFIXES[0])
    else:
        assert "ImportError" in done.stderr and "was not compiled" in done.stderr


def test_compiled_never_falls_back_to_sources(tmp_path: Path) -> None:
    copy_sources(tmp_path)
    done = run(TELL, "compiled", tmp_path)
    assert done.returncode == 1
    assert "ImportError: PGPROXY_IMPL=compiled, but pgproxy.protocol" in done.stderr


def test_unset_takes_the_sources_where_nothing_was_built(tmp_path: Path) -> None:
    copy_sources(tmp_path)
    done = run(TELL, "", tmp_path)
    assert done.stdout.split() == ["python", str(tmp_path / "pgproxy/protocol/startup.py")], done.stderr


def test_unset_takes_the_sources_of_a_half_done_build(tmp_path: Path) -> None:
    """mypyc's shims without the extension that holds their code: what an aborted build leaves."""
    copy_sources(tmp_path)
    shim = tmp_path / "pgproxy" / "protocol" / f"framing{EXTENSION_SUFFIXES[0]}"
    shim.write_bytes(b"not an extension")
    script = (
        "import importlib.util as u; g = u.find_spec; "
        "u.find_spec = lambda name: None if '__mypyc' in name else g(name)\n" + TELL
    )
    done = run(script, "", tmp_path)
    assert done.stdout.startswith("python "), done.stderr


def test_another_word_is_refused() -> None:
    done = run(TELL, "fast")
    assert "PGPROXY_IMPL must be python or compiled" in done.stderr


@pytest.mark.parametrize("impl", ["python", ""])
def test_the_package_imports_no_io(impl: str) -> None:
    """sans-I/O: importing every module brings in neither asyncio nor logging, sockets or a clock's user."""
    script = (
        "import sys\n"
        "from pgproxy.protocol import backend, frontend, framing, startup\n"
        "print(*[m for m in ('asyncio', 'logging', 'socket', 'selectors', 'random') if m in sys.modules])"
    )
    done = run(script, impl)
    assert done.returncode == 0 and done.stdout.strip() == "", done.stdout + done.stderr


def copy_sources(target: Path) -> None:
    (target / "pgproxy" / "protocol").mkdir(parents=True)
    shutil.copy(Path(pgproxy.__file__), target / "pgproxy")
    for source in PACKAGE.glob("*.py"):
        shutil.copy(source, target / "pgproxy" / "protocol")
