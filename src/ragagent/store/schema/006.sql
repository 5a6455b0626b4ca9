-- Conversations: turns, of which each follows another one or none, and sessions, which are names for the last turn of a
-- line. What a turn answered from, it may quote: so it is seen by callers who may read as much.

CREATE TABLE sessions (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant      TEXT NOT NULL,
    reach       TEXT NOT NULL,                      -- the stores that its keys are bound to; '*': all of the tenant's
    name        TEXT NOT NULL,
    head        TEXT NOT NULL,                      -- the turn that came last
    position    INTEGER NOT NULL,                   -- how many turns it has had, counted from 1 and never back
    is_pending  INTEGER NOT NULL DEFAULT 0,         -- its last turns have not been told to the other hosts
    is_branched INTEGER NOT NULL DEFAULT 0,         -- turns were set aside, and nobody has been told yet
    expires_at  INTEGER NOT NULL,
    UNIQUE (tenant, reach, name)
);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);
CREATE INDEX sessions_pending ON sessions (id) WHERE is_pending;

CREATE TABLE turns (
    id              TEXT PRIMARY KEY,               -- resp_... with 128 random bits
    tenant          TEXT NOT NULL,
    reach           TEXT NOT NULL,
    parent          TEXT,                           -- may be gone: then the line begins here
    session_id      INTEGER REFERENCES sessions (id) ON DELETE CASCADE,
    position        INTEGER,                        -- in its session
    is_aside        INTEGER NOT NULL DEFAULT 0,     -- another turn took its place in the session's line
    messages        TEXT NOT NULL,                  -- [[role, content], ...]
    answer          TEXT NOT NULL,
    status          TEXT NOT NULL CHECK (status IN ('completed', 'incomplete', 'deleted')),
    payload         BLOB NOT NULL,
    bytes           INTEGER NOT NULL,
    idempotency_key TEXT,
    fingerprint     BLOB,                           -- of the request that the key came with
    created_at      INTEGER NOT NULL
);
CREATE INDEX turns_by_parent ON turns (parent) WHERE parent IS NOT NULL;
CREATE INDEX turns_by_session ON turns (session_id, position) WHERE session_id IS NOT NULL;
CREATE UNIQUE INDEX turns_by_key ON turns (session_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX turns_by_age ON turns (created_at);

-- What each tenant keeps: summed as it changes, since every question asks.
CREATE TABLE conversation_totals (
    tenant   TEXT PRIMARY KEY,
    sessions INTEGER NOT NULL DEFAULT 0,
    bytes    INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TRIGGER totals_with_session AFTER INSERT ON sessions BEGIN
    INSERT INTO conversation_totals (tenant, sessions) VALUES (new.tenant, 1)
        ON CONFLICT (tenant) DO UPDATE SET sessions = sessions + 1;
END;
CREATE TRIGGER totals_without_session AFTER DELETE ON sessions BEGIN
    UPDATE conversation_totals SET sessions = sessions - 1 WHERE tenant = old.tenant;
END;
CREATE TRIGGER totals_with_turn AFTER INSERT ON turns BEGIN
    INSERT INTO conversation_totals (tenant, bytes) VALUES (new.tenant, new.bytes)
        ON CONFLICT (tenant) DO UPDATE SET bytes = bytes + new.bytes;
END;
CREATE TRIGGER totals_of_turn AFTER UPDATE OF bytes ON turns BEGIN
    UPDATE conversation_totals SET bytes = bytes + new.bytes - old.bytes WHERE tenant = new.tenant;
END;
CREATE TRIGGER totals_without_turn AFTER DELETE ON turns BEGIN
    UPDATE conversation_totals SET bytes = bytes - old.bytes WHERE tenant = old.tenant;
END;
