"""What a statement that waits would do: who and what it meets in the database, for the person who decides.

`Probe` answers for one approval object with the value of its `context.impact`. It works on connections of its own, as
the observer, and never on the agent's. A text is read by PostgreSQL's grammar (`aims.py`), `locks.py` says which lock
modes it takes, and one module a subject asks the server: `relations.py`, `plans.py` (after `hazards.py`),
`consequences.py`, `privileges.py`, `code.py`.

Invariants:

1. Nothing is changed and nothing of a user's runs: every transaction is read-only and rolled back, and a statement is
   planned (EXPLAIN, never ANALYZE) only where no code of a user's can be reached by planning it. Planning runs
   IMMUTABLE and STABLE functions, so without that an agent could have a function run as the observer.
2. Nothing waits long: `lock_timeout`, `statement_timeout`, a limit on the whole; each section in a savepoint that is
   rolled back, so that no lock outlives it.
3. A section that could not be gathered says why, `{"error": …}`; one that has nothing to say is left out. What is cut
   says so. An answer is never left out because it would be long: it says that there is more.
4. `probe` raises nothing but cancellation, and needs no store.

Must not know: approvals, sessions, policy, the configuration. Rejected: asking on the agent's own connection (it is
held, perhaps inside a transaction, and what it sees is its own), and the workers' estimates (a number, when a person
needs the names).

Limits: it is the database's state of that moment, read as the observer, who needs no privilege but CONNECT. Planning
asks for privileges on the tables, and other sessions' states are for members of pg_read_all_stats: the sections say
where that was missing. Texts that are too large or too deep for an ordinary stack are not read here.
"""

from __future__ import annotations

from pgproxy.impact.probe import Probe

__all__ = ["Probe"]
