-- The audit trail: one insert-only table. Its own schema, so that rights on it are given apart from the approvals'.
CREATE SCHEMA IF NOT EXISTS audit;

CREATE TABLE audit.entries (
    seq          bigserial      PRIMARY KEY,
    -- Made by the writer before the first attempt. A retry after a lost connection meets it again and stores nothing
    -- twice; a statement refused for want of this very record takes its place as `blocked` (pgproxy.audit.writer).
    entry_id     uuid           NOT NULL UNIQUE,
    node         text           NOT NULL,
    time         timestamptz(6) NOT NULL,
    kind         text           NOT NULL
                 CHECK (kind IN ('statement', 'outcome', 'session_start', 'session_end', 'approval', 'config')),
    statement_id text,
    session_id   text,
    agent        text,
    decision     text
                 CHECK (decision IN ('allowed', 'observed', 'approved', 'denied', 'expired', 'withdrawn', 'blocked')),
    classes      text[]         NOT NULL DEFAULT '{}',
    sql          text,
    size_bytes   bigint         NOT NULL,          -- of sql and body as sent: a reader bounds its pages by it
    body         jsonb          NOT NULL           -- the entry without sql, seq and node
);

COMMENT ON TABLE audit.entries IS 'pgproxy''s audit trail; insert only';

-- Newest first is (time, seq) descending; each filter that is selective brings its own way there.
CREATE INDEX entries_time ON audit.entries (time, seq);
CREATE INDEX entries_agent ON audit.entries (agent, time, seq);
CREATE INDEX entries_session ON audit.entries (session_id, time, seq);
-- `allowed` is nearly everything: looking for it walks entries_time instead.
CREATE INDEX entries_decision ON audit.entries (decision, time, seq) WHERE decision <> 'allowed';
-- So are reads and writes: only the others are looked up by class, and only they are in this index.
CREATE INDEX entries_classes ON audit.entries USING gin (classes)
    WHERE NOT classes <@ ARRAY['read', 'write', 'transaction'];
CREATE INDEX entries_statement ON audit.entries (statement_id, time, seq) WHERE statement_id IS NOT NULL;

CREATE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'audit entries are never changed or removed'
        USING ERRCODE = 'insufficient_privilege', DETAIL = format('%s on audit.entries', TG_OP);
END
$$;

CREATE TRIGGER entries_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.entries
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
-- ALWAYS: session_replication_role = replica does not get around it.
ALTER TABLE audit.entries ENABLE ALWAYS TRIGGER entries_insert_only;
