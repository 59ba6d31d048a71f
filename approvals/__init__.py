"""Approvals: a parked statement becomes a request, people decide it, and it is used once.

Owns the tables of schema `approvals`, the status machine, reviewers and the HTTP API over them. Knows
nothing of the wire protocol or of SQL: what it needs of the proxy it declares in `approvals.ports`, and
`pgproxy.app` fills it.

Invariants:

1. A request changes status only along `model.TRANSITIONS`, by one compare-and-set `UPDATE … WHERE status =
   …`; of any number of racing processes exactly one sees its step succeed.
2. Every time is the store's clock; no decision depends on the clock of a worker or an API process.
3. Each step leaves an event in the outbox in the same transaction, by trigger; nothing can happen without a
   trace.
4. Nobody decides their own request: neither the owner, nor the agent, nor the database user, whatever their
   roles.
5. An answer that does not come in bounded time is `StoreUnavailable`, and the statement does not run.

Rejected: one process that holds requests in memory and hands out decisions. It would be faster by a
millisecond where a human takes seconds, and lose every pending request with the process.
"""
