"""The asyncio shell of the data plane: sockets, start-up, authentication, and the relay that performs effects.

Owns every task and transport. Must not know: what a statement means, the store's tables, the HTTP API.

* `listener` accepts connections and keeps the directory of live sessions, `admission` counts them,
* `startup` brings one connection from its first byte to ReadyForQuery (`auth` and `scram` for who it is),
* `relay` feeds `session.Session` with events and performs its effects in order,
* `upstream` connects to the server, `cancel` routes CancelRequests, `errands` sees to calls nobody waits for.

Invariants: an unexpected exception ends the session on both sides; reading from a side stops while the other side
does not take what was read; every task belongs to a TaskGroup or to `errands`.
"""
