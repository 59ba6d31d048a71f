-- What is gathered about a request after it was made, and which relations an agent has asked about before.

ALTER TABLE approvals.events
    DROP CONSTRAINT events_kind_check,
    ADD CHECK (kind IN ('status', 'vote', 'comment', 'modify', 'grant', 'context'));

CREATE FUNCTION approvals.record_context() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO approvals.events (approval_id, kind, status, revision, detail)
    VALUES (NEW.id, 'context', NEW.status, NEW.revision, '{}');
    RETURN NULL;
END
$$;

CREATE TRIGGER context_added AFTER UPDATE OF context ON approvals.requests
    FOR EACH ROW WHEN (OLD.context::text IS DISTINCT FROM NEW.context::text)
    EXECUTE FUNCTION approvals.record_context();

-- The first request of an agent that named a relation. Of requests for approval only: what an agent runs unasked is in
-- the audit trail, which keeps no relations.
CREATE TABLE approvals.touches (
    agent        text        NOT NULL,
    database     text        NOT NULL,
    relation     text        NOT NULL,
    first_at     timestamptz NOT NULL,
    approval_id  text COLLATE "C" NOT NULL REFERENCES approvals.requests,
    PRIMARY KEY (agent, database, relation)
);
