-- Requirements of several rules, statements changed by a reviewer, grants, and requests that outlive their session.

-- What `json` holds is never taken apart here: the operators of that type refuse a whole document that has \u0000
-- anywhere ("JSON Types"), and agents may send that. What is searched or compared has a column of its own.
ALTER TABLE approvals.requests
    ADD COLUMN requirements    json    NOT NULL DEFAULT '[]',  -- [{"rule", "groups", "count"}], all to be met
    ADD COLUMN asked           text    NOT NULL DEFAULT '',    -- requirements and channels as first asked for, canonical
    ADD COLUMN sha256          text    NOT NULL DEFAULT '',    -- of the current statement's raw bytes
    ADD COLUMN revision        integer NOT NULL DEFAULT 1,     -- how often the statement was changed, and 1
    ADD COLUMN original        json,                           -- revision 1, once there is another
    ADD COLUMN modified_by     text,
    ADD COLUMN wait            boolean NOT NULL DEFAULT true,
    ADD COLUMN retry_binding   text    NOT NULL DEFAULT '',
    ADD COLUMN grant_key       json,
    ADD COLUMN grant_id        text COLLATE "C",
    ADD COLUMN row_cap         bigint  CHECK (row_cap >= 0),
    ADD COLUMN channels        text[]  NOT NULL DEFAULT '{}',
    ADD COLUMN notify          text[]  NOT NULL DEFAULT '{}',
    ADD COLUMN escalations     json    NOT NULL DEFAULT '[]',
    ADD COLUMN message         text,
    ADD COLUMN policy_version  text    NOT NULL DEFAULT '',
    ADD COLUMN budget          json,
    ADD COLUMN owner           text,
    ADD COLUMN database        text,
    ADD COLUMN fingerprint     text,
    ADD COLUMN classes         text[]  NOT NULL DEFAULT '{}',
    ADD COLUMN said            text    NOT NULL DEFAULT '',    -- reason and ticket, for searching
    ADD CONSTRAINT requests_retry CHECK (wait OR retry_binding <> '');

-- Requests from before: one requirement. In JSON text an unescaped quote is none of the statement's own.
UPDATE approvals.requests SET
    requirements = json_build_array(
        json_build_object('rule', rule, 'groups', approver_groups, 'count', required_approvals)),
    sha256 = coalesce(substring(statement::text FROM '"sha256": "([0-9a-f]{64})"'), '');
ALTER TABLE approvals.requests DROP COLUMN approver_groups;

CREATE INDEX requests_fingerprint_newest ON approvals.requests (agent, fingerprint, created_at DESC, id DESC);
CREATE INDEX requests_open ON approvals.requests (agent) WHERE status IN ('pending', 'approved');
CREATE INDEX requests_of_grant ON approvals.requests (grant_id) WHERE grant_id IS NOT NULL;

-- A vote is for one revision; those for an earlier one are void and kept. `person_keys` are all names of the person at
-- that moment, `groups` those they were in; `counts` is false for who changed a statement to one that does more.
ALTER TABLE approvals.decisions
    ADD COLUMN revision     integer NOT NULL DEFAULT 1,
    ADD COLUMN person_keys  text[]  NOT NULL DEFAULT '{}',
    ADD COLUMN groups       text[]  NOT NULL DEFAULT '{}',
    ADD COLUMN counts       boolean NOT NULL DEFAULT true,
    ADD COLUMN terms        json,                              -- of the grant this vote agreed to
    DROP CONSTRAINT decisions_pkey,
    DROP CONSTRAINT decisions_decision_check,
    ADD PRIMARY KEY (approval_id, revision, reviewer_key),
    ADD CHECK (decision IN ('approve', 'deny', 'modify'));
UPDATE approvals.decisions SET person_keys = ARRAY[reviewer_key];
UPDATE approvals.decisions SET groups = coalesce(reviewers.groups, '{}')
    FROM approvals.reviewers WHERE reviewers.name = decisions.reviewer;

-- Other names of the same person (an OIDC subject, a chat user id).
ALTER TABLE approvals.reviewers ADD COLUMN IF NOT EXISTS aliases text[] NOT NULL DEFAULT '{}';

CREATE TABLE approvals.grants (
    id             text COLLATE "C" PRIMARY KEY,
    created_at     timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL CHECK (expires_at > created_at),
    agent          text        NOT NULL,
    owner          text        NOT NULL,
    database       text        NOT NULL,
    db_user        text        NOT NULL,
    environment    text        NOT NULL,
    scope          text        NOT NULL CHECK (scope IN ('exact', 'text', 'shape', 'transaction')),
    text_sha256    text        CHECK (scope <> 'text' OR text_sha256 IS NOT NULL),
    shape          text        CHECK (scope <> 'shape' OR shape IS NOT NULL),
    transaction    text        CHECK (scope <> 'transaction' OR transaction IS NOT NULL),
    retry_binding  text        CHECK (scope <> 'exact' OR retry_binding <> ''),
    uses           integer     CHECK (uses > 0),               -- null: any number
    uses_left      integer     CHECK (uses_left >= 0),
    row_cap        bigint      CHECK (row_cap >= 0),
    asked          text        NOT NULL,                       -- as of the request it was given on
    classes        text[]      NOT NULL,
    relations      text[]      NOT NULL,
    risk           text        NOT NULL,
    requirements   json        NOT NULL,
    rule           text        NOT NULL,
    approval_id    text COLLATE "C" NOT NULL UNIQUE REFERENCES approvals.requests,
    reviewers      text[]      NOT NULL,
    reviewer_keys  text[]      NOT NULL,
    comment        text,
    revoked_at     timestamptz,
    revoked_by     text
);

CREATE INDEX grants_newest ON approvals.grants (created_at DESC, id DESC);
CREATE INDEX grants_live ON approvals.grants (agent, expires_at) WHERE revoked_at IS NULL;
ALTER TABLE approvals.requests ADD FOREIGN KEY (grant_id) REFERENCES approvals.grants;

-- Each event is of one revision: a reader that comes late must not take a changed statement for the first one.
ALTER TABLE approvals.events
    ADD COLUMN revision integer NOT NULL DEFAULT 1,
    DROP CONSTRAINT events_kind_check,
    ADD CHECK (kind IN ('status', 'vote', 'comment', 'modify', 'grant'));

CREATE OR REPLACE FUNCTION approvals.record_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO approvals.events (approval_id, kind, status, revision, detail)
    VALUES (NEW.id, 'status', NEW.status, NEW.revision,
            json_build_object('reason', NEW.withdraw_reason, 'outcome', NEW.outcome, 'grant_id', NEW.grant_id));
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION approvals.record_vote() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO approvals.events (approval_id, kind, status, revision, detail)
    SELECT NEW.approval_id, 'vote', requests.status, NEW.revision,
           json_build_object('reviewer', NEW.reviewer, 'decision', NEW.decision, 'comment', NEW.comment,
                             'via', NEW.via, 'grant', NEW.terms)
    FROM approvals.requests WHERE requests.id = NEW.approval_id;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION approvals.record_comment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO approvals.events (approval_id, kind, status, revision, detail)
    SELECT NEW.approval_id, 'comment', requests.status, requests.revision,
           json_build_object('reviewer', NEW.reviewer, 'text', NEW.text)
    FROM approvals.requests WHERE requests.id = NEW.approval_id;
    RETURN NULL;
END
$$;

CREATE FUNCTION approvals.record_modification() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO approvals.events (approval_id, kind, status, revision, detail)
    VALUES (NEW.id, 'modify', NEW.status, NEW.revision,
            json_build_object('reviewer', NEW.modified_by, 'statement', NEW.statement,
                              'classification', NEW.classification, 'risk', NEW.risk, 'rule', NEW.rule,
                              'requirements', NEW.requirements, 'policy_version', NEW.policy_version));
    RETURN NULL;
END
$$;

CREATE TRIGGER modified AFTER UPDATE OF revision ON approvals.requests
    FOR EACH ROW WHEN (OLD.revision IS DISTINCT FROM NEW.revision) EXECUTE FUNCTION approvals.record_modification();

-- A grant's events are those of the request that made it, or used it.
CREATE FUNCTION approvals.record_grant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO approvals.events (approval_id, kind, status, revision, detail)
    SELECT requests.id, 'grant', requests.status, requests.revision,
           json_build_object('event', CASE WHEN TG_OP = 'INSERT' THEN 'made' ELSE 'revoked' END, 'grant_id', NEW.id,
                             'scope', NEW.scope, 'uses', NEW.uses, 'uses_left', NEW.uses_left,
                             'row_cap', NEW.row_cap, 'expires_at', NEW.expires_at, 'reviewers', NEW.reviewers,
                             'by', NEW.revoked_by)
    FROM approvals.requests WHERE requests.id = NEW.approval_id;
    RETURN NULL;
END
$$;

CREATE TRIGGER made AFTER INSERT ON approvals.grants
    FOR EACH ROW EXECUTE FUNCTION approvals.record_grant();
CREATE TRIGGER revoked AFTER UPDATE OF revoked_at ON approvals.grants
    FOR EACH ROW WHEN (OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL)
    EXECUTE FUNCTION approvals.record_grant();

CREATE FUNCTION approvals.record_grant_use() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO approvals.events (approval_id, kind, status, revision, detail)
    SELECT NEW.id, 'grant', NEW.status, NEW.revision,
           json_build_object('event', 'used', 'grant_id', grants.id, 'scope', grants.scope, 'uses', grants.uses,
                             'uses_left', grants.uses_left, 'row_cap', grants.row_cap,
                             'expires_at', grants.expires_at, 'reviewers', grants.reviewers, 'by', NULL)
    FROM approvals.grants WHERE grants.id = NEW.grant_id;
    RETURN NULL;
END
$$;

CREATE TRIGGER used AFTER INSERT ON approvals.requests
    FOR EACH ROW WHEN (NEW.grant_id IS NOT NULL) EXECUTE FUNCTION approvals.record_grant_use();
