-- Editions: the indexes that a store has besides the one that is searched. Each is a directory under index/.
--
--   rebuild   made anew beside one that is damaged or that someone wants replaced; takes its place when it has caught up
--   next      of another model, its vectors in the other slot; takes the place when it is told to
--   kept      the one that was searched before, to go back to; kept up to date like `next`
--   dropped   given up: its vectors go in slices, then it is spent
--   spent     nobody begins to read it: its directory goes

CREATE TABLE editions (
    store_id   TEXT NOT NULL REFERENCES vector_stores (id) ON DELETE CASCADE,
    number     INTEGER NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('rebuild', 'next', 'kept', 'dropped', 'spent')),
    slot       INTEGER NOT NULL CHECK (slot IN (0, 1)),
    model      TEXT NOT NULL,
    dimension  INTEGER NOT NULL,
    cursor     INTEGER NOT NULL DEFAULT 0,       -- up to this chunk id the slot has its vectors (or has them no more)
    budget     REAL NOT NULL DEFAULT 1.0,        -- the share of the time that may go into making its vectors
    is_wanted  INTEGER NOT NULL DEFAULT 0,       -- someone has asked that it be searched
    trouble    TEXT,                             -- why it does not get on
    created_at INTEGER NOT NULL,
    PRIMARY KEY (store_id, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX editions_rebuilt ON editions (store_id) WHERE state = 'rebuild';
CREATE UNIQUE INDEX editions_beside ON editions (store_id) WHERE state IN ('next', 'kept');

-- Someone has asked that a store's searched index go back to a generation that was kept. It goes on from there at once.
CREATE TABLE returns (
    store_id   TEXT PRIMARY KEY REFERENCES vector_stores (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    trouble    TEXT                                -- why it was not done
) WITHOUT ROWID;

-- One counter for all stores: a number never comes back, so neither does a directory or what a cache files under it.
INSERT INTO counters VALUES ('edition', 0);

-- Set when a store's index has first been made: where it is missing from then on, it was lost.
ALTER TABLE vector_stores ADD COLUMN is_indexed INTEGER NOT NULL DEFAULT 0;

CREATE INDEX vector_stores_by_seq ON vector_stores (seq);  -- what has changed since
CREATE INDEX chunks_by_store ON chunks (store_id);         -- a store's chunks by id: where a cursor stands in them
