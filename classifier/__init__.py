"""SQL text to classification: what would a text do if PostgreSQL ran it? Pure; no I/O, no clock, no
randomness.

    >>> from classifier import classify
    >>> classify("COPY users TO STDOUT").classes
    ('export',)

It may answer `unknown`, and unknown is privileged. The way of a text (`classify.py`):

1. `lexer.py`, our own and exact: statement boundaries, limits, comments blanked out. libpg_query must not see
   comments, for keeping them as tokens changes its grammar; and two independent views of the boundaries catch
   either being fooled.
2. `grammar.py`, PostgreSQL's own grammar (libpg_query of PostgreSQL 18 as postgast ships it). It alone
decides the class: over the 56,809 distinct statements of PostgreSQL's regression suites its node types find
all DDL, role and export statements, sqlglot's roots 64 %. 3. `walk.py` under the allow-list of `nodes.py`,
never a deny-list of roots: `statements.py` gives every statement of the grammar its class, `effects.py` and
`utility.py` what their content adds, `functions.py`, `settings.py` and `relations.py` what names mean. A
node, field or value not listed makes the statement unknown. 4. `meaning.py`: sqlglot reads PostgreSQL's
deparse of the tree, never the client's bytes, by which it can be fooled. It adds relations; an effect only
it sees makes the statement unknown; its failing means nothing.

5. With a snapshot of the database's catalog (`catalog.py`), `names.py` finds what the names in the tree reach,
and `bodies.py` what that does: functions by their bodies (`plpgsql.py`), relations by triggers, rules, views,
policies and foreign keys, types by checks and casts, C code by its extension (`extensions.py`). Without one such
functions are unknown, and the rest cannot be seen.

Invariants, each with a test:

1. `classify` raises for no text, and the same text and environment give the same answer.
2. Effects count wherever they stand: in a CTE, under EXPLAIN, PREPARE, COPY, CREATE SCHEMA, a rule.
3. Where lexer and grammar disagree about boundaries the answer is unknown.
4. No string constant appears in `normalized`, and reasons quote names but never constants.
5. `constant_free` is true only if no constant of the text could change what the answer says.

What it must not know: sockets, sessions, policies, approvals, the clock. Rejected: sqlglot alone (17 % of the
suites' statements are an opaque `Command` to it), a deny-list of roots (a new statement would pass), pgparse
(PostgreSQL 17's grammar, holds the GIL) and pglast (GPL) at run time.

Deep texts need a deep stack: `classify` in an ordinary thread answers `unknown` for some ordinary depth
(RecursionError while reading the tree) and may be killed by chains of tens of thousands of terms inside
libpg_query. A process that takes hostile text uses `pgproxy.analysis`; one that must not die checks
`lexer.scan(…).is_small` first.
"""

from __future__ import annotations

from classifier import implementation as implementation  # settles the lexer's form, so it comes first
from classifier.catalog import CatalogSnapshot
from classifier.classify import classify, knowledge_of, rejected, unknown
from classifier.model import (
    UNPRIVILEGED,
    Action,
    ActionClass,
    Classification,
    Environment,
    Risk,
    Statement,
)

__all__ = [
    "UNPRIVILEGED",
    "Action",
    "ActionClass",
    "CatalogSnapshot",
    "Classification",
    "Environment",
    "Risk",
    "Statement",
    "classify",
    "knowledge_of",
    "rejected",
    "unknown",
]
