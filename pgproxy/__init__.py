"""pgproxy: a PostgreSQL wire-protocol proxy that parks privileged statements until a human approves them.

One statement goes down once and up once: `net` reads bytes, `protocol` cuts and reads messages, `session` judges
them (`policy` over `classifier`'s answer) and emits effects, `net` performs those in order. Waiting for a human is
an ordinary event of a session, not a thread that sleeps. Only `pgproxy.app` knows every part.

Invariants, in the order of the promises:

1. Nothing privileged runs unasked: no byte of a statement reaches the server before its decision is recorded.
2. No evidence is lost: a statement whose record cannot be kept is refused.
3. Clients notice nothing else: what is forwarded is always the client's own bytes.
"""

__version__ = "0.1.0"
