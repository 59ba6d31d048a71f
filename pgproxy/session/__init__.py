"""The session of one client and one server connection, sans I/O: events in, effects out.

Owns: which message may go to the server and when, which reply belongs to which statement, what parking means.
Must not know: sockets, the event loop, the clock (`now` comes with each event), the store, the log.

    event ──► Session.handle(event, now) ──► [effects, performed in order by net.relay]

* `machine` dispatches events, `gate` judges messages, `replies` matches the server's answers to what was sent,
  `statements` keeps the name spaces of prepared statements and portals, `settings` follows what changes the meaning
  of a text, `refusals` makes the substitute that the server itself must reject, `evidence` the audit entries.
* `asking` makes requests for approval and what the client hears of them, `modification` runs a reviewer's text in place
  of the client's.
* `budget` counts rows, `hourly` over sessions; `holding` is a result that ran into a budget: held, sent on, or ended.
* `large` is what the gate does with a message too large to be kept.
* The gate's states and what each event means in each of them stand in one table, `states.TABLE`.

Invariants:

1. The message, never the read chunk, is the unit of judgement; an incomplete message is never forwarded in part
   (runs of CopyData excepted, which carry no statement, and a Bind of more than a megabyte, of which everything that
   decides has arrived; in `observe`, where nothing is refused, any such message).
2. A statement's decision is recorded before its first byte goes to the server.
3. pgproxy never invents a ReadyForQuery while the server lives, and replaces an ErrorResponse only if it carries
   the nonce of a substitute this session sent, ends a result that was refused in mid-stream, or answers a question of
   pgproxy's own.
4. A statement is parked only when every earlier reply is in: what the server will say to it depends on no pending
   error.
5. A privileged statement whose client is gone, or that asks to be cancelled, never runs.
6. The row that exceeds a budget does not reach the client unapproved, and what is sent behind a counted result waits
   for its replies: had it run already, a refusal would tell the client something untrue.

Rejected: simulating the server's failed-transaction state in the proxy (the server keeps it far better itself), and
judging at Parse alone (a Parse only names; values and effects come with Bind).
"""
