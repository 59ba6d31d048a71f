-- Requests, decisions, comments, reviewers and the outbox of everything that happened to a request.
--
-- Documents are json, not jsonb: jsonb refuses \u0000 ("JSON Types"), and what an agent sent must be kept as it is.
-- Times are clock_timestamp(), the store's clock at the moment of the step: now() is the start of the transaction and
-- would be stale after waiting for a row lock ("Date/Time Functions and Operators").

CREATE SCHEMA approvals;

CREATE TABLE approvals.requests (
    id                  text COLLATE "C" PRIMARY KEY,
    status              text        NOT NULL DEFAULT 'pending' CHECK (status IN
                            ('pending', 'approved', 'denied', 'expired', 'withdrawn',
                             'executing', 'executed', 'failed', 'unknown')),
    created_at          timestamptz NOT NULL,
    expires_at          timestamptz NOT NULL CHECK (expires_at > created_at),
    resolved_at         timestamptz,
    started_at          timestamptz,
    finished_at         timestamptz,
    node                text        NOT NULL,
    instance            text        NOT NULL,
    agent               text        NOT NULL,
    binding             text        NOT NULL,
    risk                text        NOT NULL,
    rule                text        NOT NULL,
    required_approvals  integer     NOT NULL CHECK (required_approvals >= 1),
    approver_groups     text[]      NOT NULL,
    requester           json        NOT NULL,
    statement           json        NOT NULL,
    classification      json        NOT NULL,
    context             json        NOT NULL,
    outcome             json,
    withdraw_reason     text
);

CREATE INDEX requests_newest ON approvals.requests (created_at DESC, id DESC);
CREATE INDEX requests_agent_newest ON approvals.requests (agent, created_at DESC, id DESC);
CREATE INDEX requests_status_newest ON approvals.requests (status, created_at DESC, id DESC);
CREATE INDEX requests_expiring ON approvals.requests (expires_at) WHERE status IN ('pending', 'approved');
CREATE INDEX requests_live ON approvals.requests (node, instance)
    WHERE status IN ('pending', 'approved', 'executing');

-- One vote a person; the key is the normalised name, so that two spellings are one person.
CREATE TABLE approvals.decisions (
    approval_id   text COLLATE "C" NOT NULL REFERENCES approvals.requests,
    reviewer_key  text        NOT NULL,
    reviewer      text        NOT NULL,
    decision      text        NOT NULL CHECK (decision IN ('approve', 'deny')),
    comment       text,
    via           text        NOT NULL,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (approval_id, reviewer_key)
);

CREATE TABLE approvals.comments (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    approval_id  text COLLATE "C" NOT NULL REFERENCES approvals.requests,
    reviewer     text        NOT NULL,
    text         text        NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX comments_of ON approvals.comments (approval_id, id);

-- Tokens are high-entropy, so a plain SHA-256 is enough to store them by and to look them up with.
CREATE TABLE approvals.reviewers (
    name          text    PRIMARY KEY,
    token_sha256  bytea   UNIQUE CHECK (length(token_sha256) = 32),
    groups        text[]  NOT NULL,
    roles         text[]  NOT NULL CHECK (roles <@ ARRAY['reviewer', 'auditor', 'admin']),
    machine       boolean NOT NULL DEFAULT false,
    disabled      boolean NOT NULL DEFAULT false,
    synced_at     timestamptz NOT NULL DEFAULT now()
);

-- The outbox. `id` is given at insertion, so a lower id may be committed after a higher one; `seq` is given later, by one
-- reader at a time, in an order that is final once seen: readers follow `seq`.
CREATE TABLE approvals.events (
    id           bigserial   PRIMARY KEY,
    seq          bigint      UNIQUE,
    approval_id  text COLLATE "C" NOT NULL REFERENCES approvals.requests,
    kind         text        NOT NULL CHECK (kind IN ('status', 'vote', 'comment')),
    status       text        NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    detail       json        NOT NULL
);

CREATE INDEX events_of ON approvals.events (approval_id, id);
CREATE INDEX events_unnumbered ON approvals.events (id) WHERE seq IS NULL;
CREATE SEQUENCE approvals.events_seq OWNED BY approvals.events.seq;

-- How far a named reader of the outbox (the audit trail, say) has got.
CREATE TABLE approvals.readers (
    name  text   PRIMARY KEY,
    seq   bigint NOT NULL
);

-- Triggers, so that no path can change a request without leaving an event and waking who waits.
CREATE FUNCTION approvals.record_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO approvals.events (approval_id, kind, status, detail)
    VALUES (NEW.id, 'status', NEW.status,
            json_build_object('reason', NEW.withdraw_reason, 'outcome', NEW.outcome));
    RETURN NULL;
END
$$;

CREATE TRIGGER opened AFTER INSERT ON approvals.requests
    FOR EACH ROW EXECUTE FUNCTION approvals.record_status();
CREATE TRIGGER moved AFTER UPDATE OF status ON approvals.requests
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION approvals.record_status();

CREATE FUNCTION approvals.record_vote() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO approvals.events (approval_id, kind, status, detail)
    SELECT NEW.approval_id, 'vote', requests.status,
           json_build_object('reviewer', NEW.reviewer, 'decision', NEW.decision,
                             'comment', NEW.comment, 'via', NEW.via)
    FROM approvals.requests WHERE requests.id = NEW.approval_id;
    RETURN NULL;
END
$$;

CREATE TRIGGER voted AFTER INSERT ON approvals.decisions
    FOR EACH ROW EXECUTE FUNCTION approvals.record_vote();

CREATE FUNCTION approvals.record_comment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO approvals.events (approval_id, kind, status, detail)
    SELECT NEW.approval_id, 'comment', requests.status,
           json_build_object('reviewer', NEW.reviewer, 'text', NEW.text)
    FROM approvals.requests WHERE requests.id = NEW.approval_id;
    RETURN NULL;
END
$$;

CREATE TRIGGER commented AFTER INSERT ON approvals.comments
    FOR EACH ROW EXECUTE FUNCTION approvals.record_comment();

-- Ids only: payloads are limited to 8000 bytes ("NOTIFY"), and statements are nobody's business on a channel.
CREATE FUNCTION approvals.announce() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('approvals', NEW.approval_id);
    RETURN NULL;
END
$$;

CREATE TRIGGER announced AFTER INSERT ON approvals.events
    FOR EACH ROW EXECUTE FUNCTION approvals.announce();
