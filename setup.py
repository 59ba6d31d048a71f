"""Builds `pgproxy/protocol` and the classifier's lexer with mypyc where a C compiler exists; pure Python where not.

The extensions are optional: setuptools reports a failed compilation and goes on, and the interpreter then
finds the same modules as source. `PGPROXY_NO_COMPILE=1` leaves the compilation out.
"""

import os
from pathlib import Path

from setuptools import setup


def extensions() -> list:
    if os.environ.get("PGPROXY_NO_COMPILE") == "1":
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        return []
    sources = sorted(str(p) for p in Path("pgproxy/protocol").glob("*.py") if p.name != "__init__.py")
    modules = mypycify(["--strict", *sources], opt_level="3", group_name="pgproxy_protocol")
    # classifier.implementation.COMPILED
    lexer = ["classifier/lexer.py", "classifier/literals.py", "classifier/rows.py"]
    # skip: the package's __init__ imports what a build environment need not hold
    modules += mypycify(["--strict", "--follow-imports=skip", *lexer], opt_level="3", group_name="classifier_lexer")
    for module in modules:
        module.optional = True
    return modules


setup(ext_modules=extensions())
