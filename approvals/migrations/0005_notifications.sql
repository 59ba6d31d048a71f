-- What is to be told outside, and what has been: one row for each message to one target. How far a target's reader of
-- the outbox has got is in approvals.readers, as `notify:` and the target.
CREATE TABLE approvals.deliveries (
    id            bigserial   PRIMARY KEY,
    message_id    text        NOT NULL UNIQUE,                 -- the receiver's key against doubles
    target        text        NOT NULL,
    channel_kind  text        NOT NULL CHECK (channel_kind IN ('slack', 'teams', 'webhook', 'apprise')),
    approval_id   text COLLATE "C" NOT NULL REFERENCES approvals.requests,
    kind          text        NOT NULL CHECK (kind IN ('opened', 'changed', 'escalated')),
    key           text        NOT NULL,                        -- the event's seq, or which escalation
    event_seq     bigint,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts      integer     NOT NULL DEFAULT 0,
    next_at       timestamptz NOT NULL DEFAULT clock_timestamp(),  -- while one is tried: when it counts as lost
    delivered_at  timestamptz,
    dead_at       timestamptz,
    message_ref   json,                                        -- where the channel keeps it, to change it later
    last_error    text,
    UNIQUE (target, approval_id, key),
    CHECK (delivered_at IS NULL OR dead_at IS NULL)
);

CREATE INDEX deliveries_open ON approvals.deliveries (target, next_at)
    WHERE delivered_at IS NULL AND dead_at IS NULL;
CREATE INDEX deliveries_newest ON approvals.deliveries (id DESC);
CREATE INDEX requests_escalating ON approvals.requests (created_at)
    WHERE status = 'pending' AND escalations::text <> '[]';

-- Signatures of messages from outside that have been taken: each counts once, whichever process it reaches.
CREATE TABLE approvals.used_signatures (
    digest  bytea       PRIMARY KEY CHECK (length(digest) = 32),
    at      timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX used_signatures_oldest ON approvals.used_signatures (at);
