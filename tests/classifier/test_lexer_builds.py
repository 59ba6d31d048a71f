"""The lexer's two forms, each in an interpreter of its own, see the same in the same strings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import classifier
from classifier import implementation, lexer

ROOT = Path(classifier.__file__).parent.parent
SEE = """
import hashlib, random
from classifier import implementation, lexer
from tests.conformance.test_lexer_server import Generator
digest, generator, noise = hashlib.sha256(), Generator(5), random.Random(5)
def see(call, text):
    try:
        return call(text)
    except (lexer.LexicalError, lexer.TooHostile) as error:
        return str(error)
for number in range(6000):
    text = generator.string().encode() if number % 2 else bytes(noise.choices(b"'$\\"/*-E\\\\x;(\\n1.e:U&,", k=30))
    scan, form = see(lexer.scan, text), see(lexer.form, text)
    if isinstance(scan, lexer.Scan):
        scan = scan.blanked, [(s.start, s.end) for s in scan.spans], scan.strings, scan.nesting, scan.comments
    digest.update(repr((scan, form and (form.key, form.constants, form.statements))).encode())
print(implementation.implementation(), digest.hexdigest())
"""


def run(impl: str) -> tuple[str, str]:
    environment = {**os.environ, "PGPROXY_IMPL": impl}
    done = subprocess.run([sys.executable, "-c", SEE], env=environment, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    form, digest = done.stdout.split()
    return form, digest


def test_both_forms_see_the_same() -> None:
    form, digest = run("python")
    assert form == "python"
    # where nothing was built the form taken is the source, and the two are one
    assert run("")[1] == digest


def test_the_environment_is_obeyed() -> None:
    asked = os.environ.get("PGPROXY_IMPL")
    assert not asked or implementation.implementation() == asked


def test_another_word_is_refused() -> None:
    with pytest.raises(AssertionError, match="must be python or compiled"):
        run("fast")


def test_every_compiled_module_exists_and_is_built() -> None:
    setup = (ROOT / "setup.py").read_text()
    for name in implementation.COMPILED:
        assert (ROOT / "classifier" / f"{name}.py").exists()
        assert f'"classifier/{name}.py"' in setup
    assert lexer.__name__ == "classifier.lexer"
