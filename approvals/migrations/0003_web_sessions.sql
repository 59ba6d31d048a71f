-- Identities linked to reviewers, and the console's sessions.

-- `oidc` is a subject or an e-mail address at the issuer; the keys are the normalised spellings (model.person_key), which
-- are looked up. `aliases`: every other name of the same person, which counts only against them.
ALTER TABLE approvals.reviewers
    ADD COLUMN name_key text,
    ADD COLUMN oidc     text,
    ADD COLUMN oidc_key text UNIQUE,
    ADD COLUMN slack    text UNIQUE,
    ADD COLUMN teams    text UNIQUE;

CREATE INDEX reviewers_key ON approvals.reviewers (name_key);

-- Only the hash of the cookie's value is here. A session of a static token holds while the token does; one of an OIDC
-- login is `identity`, which is mapped to a reviewer anew at each request, and holds while that gives the same `name`.
CREATE TABLE approvals.web_sessions (
    id            text        PRIMARY KEY,
    secret_sha256 bytea       NOT NULL UNIQUE CHECK (length(secret_sha256) = 32),
    name          text        NOT NULL,
    token_sha256  bytea       CHECK (length(token_sha256) = 32),
    identity      json,
    linked        boolean     NOT NULL DEFAULT false,
    address       text        NOT NULL,
    user_agent    text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at    timestamptz NOT NULL,
    auth_time     timestamptz,
    revoked_at    timestamptz,
    revoked_by    text,
    CHECK ((token_sha256 IS NULL) <> (identity IS NULL))
);

CREATE INDEX web_sessions_open ON approvals.web_sessions (created_at DESC) WHERE revoked_at IS NULL;

-- Logins that were completed: the same response of the provider is not accepted twice.
CREATE TABLE approvals.completed_logins (
    state_sha256  bytea       PRIMARY KEY CHECK (length(state_sha256) = 32),
    at            timestamptz NOT NULL DEFAULT clock_timestamp()
);
