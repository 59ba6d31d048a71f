"""Telling people, where they are, that a request waits, and taking their decisions there.

    outbox ──▶ planning: one reader for each target ──▶ approvals.deliveries ──▶ dispatcher ──▶ channel
                                                                 ▲
    escalations, by the store's clock ───────────────────────────┘

Nothing here is in the way of a decision: a channel that is slow or dead keeps its own rows waiting and nobody
else's. What comes back from a chat goes through `approvals.decisions.decide` like every other vote, by a person that
the configuration links to the chat's identity.
"""
