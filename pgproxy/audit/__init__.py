"""The audit trail: evidence of every statement, decision, outcome, session and approval.

    records     what an entry is
    encoding    an entry as a row of audit.entries
    writer      entries into the store, group commit, over
    connection  its own connection
    reader      entries out again, newest first, outcomes merged
    terminal    `pgproxy audit tail|search` over the HTTP API

Knows nothing of wire protocol, classification or approvals: entries come in through
`session.ports.AuditWriter`, and go out through `reader.StoreReader`, which the HTTP API is given.

1. A statement's record is safe before its bytes leave for the server; without the record it is refused.
2. An entry is never changed. What turned out differently later is a later entry.
3. A record whose append failed never stands there as permission: it is stored as `blocked`, or an entry
   that says so follows it (see `writer`).
4. Nothing is cut, replaced or dropped silently: text the store cannot hold is escaped, and the entry says so.

The writer commits to the store itself while the statement waits: a statement costs a commit, shared with its
neighbours. The spool (a memory-mapped file a worker, then shipped) will take its place behind the same port;
its shipper will chain entries (`prev_hash`, `hash`) and use this package's table and reader. A
fire-and-forget queue was rejected: it loses exactly the entries that precede a crash.
"""
