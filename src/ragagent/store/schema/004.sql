-- How far a job is, who works on it, and what it failed at last. A job is named after its document, so it can be asked
-- for when it is done as well.

CREATE TABLE jobs_of_documents (
    document_id   INTEGER PRIMARY KEY REFERENCES documents (id) ON DELETE CASCADE,
    store_id      TEXT NOT NULL,
    seq           INTEGER NOT NULL,
    bytes         INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    traceparent   TEXT,                             -- of the request that brought the document
    attempts      INTEGER NOT NULL DEFAULT 0,       -- since it last made progress
    stage         TEXT NOT NULL DEFAULT 'queued' CHECK (stage IN ('queued', 'parsing', 'embedding')),
    stage_at      REAL NOT NULL,
    chunks_done   INTEGER NOT NULL DEFAULT 0,
    chunks_total  INTEGER NOT NULL DEFAULT 0,       -- 0: not known yet
    staged_for    TEXT,                             -- the embedder whose vectors are staged; NULL: nothing is
    due_at        REAL NOT NULL DEFAULT 0,          -- not to be taken before: it failed a moment ago
    error_code    TEXT,
    error_message TEXT,
    holder_pid    INTEGER,                          -- the indexer at work on it; the lock on index/ is what excludes
    holder_start  INTEGER,                          -- tells it from a later process of the same pid
    beat_at       REAL                              -- when it was last heard of
);
INSERT INTO jobs_of_documents (document_id, store_id, seq, bytes, created_at, traceparent, attempts, stage_at)
    SELECT j.document_id, j.store_id, j.seq, f.bytes, j.created_at, j.traceparent, j.attempts, j.created_at
    FROM jobs j JOIN documents d ON d.id = j.document_id JOIN files f ON f.id = d.file_id;
DROP TABLE jobs;
ALTER TABLE jobs_of_documents RENAME TO jobs;
CREATE INDEX jobs_by_seq ON jobs (seq);
CREATE INDEX jobs_by_store ON jobs (store_id, seq);
CREATE INDEX jobs_staged ON jobs (seq) WHERE staged_for IS NOT NULL;

-- A write asks how long the queue is before it adds to it: two sums that are kept, not counted. One row.
CREATE TABLE queued (documents INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO queued SELECT count(*), coalesce(sum(bytes), 0) FROM jobs;
CREATE TRIGGER jobs_join AFTER INSERT ON jobs BEGIN
    UPDATE queued SET documents = documents + 1, bytes = bytes + NEW.bytes;
END;
CREATE TRIGGER jobs_leave AFTER DELETE ON jobs BEGIN
    UPDATE queued SET documents = documents - 1, bytes = bytes - OLD.bytes;
END;

-- What left the queue lately, a row for every few seconds of the last minute.
CREATE TABLE drained (
    at        INTEGER PRIMARY KEY,
    documents INTEGER NOT NULL,
    bytes     INTEGER NOT NULL
);

-- A large document on its way: no reader looks here, and all of it moves to `chunks` in one transaction.
CREATE TABLE staged_chunks (
    document_id INTEGER NOT NULL REFERENCES jobs (document_id) ON DELETE CASCADE,
    ordinal     INTEGER NOT NULL,
    start       INTEGER NOT NULL,
    "end"       INTEGER NOT NULL,
    text        TEXT NOT NULL,
    PRIMARY KEY (document_id, ordinal)
);
CREATE TABLE staged_vectors (
    document_id INTEGER NOT NULL REFERENCES jobs (document_id) ON DELETE CASCADE,
    ordinal     INTEGER NOT NULL,
    vector      BLOB NOT NULL,                      -- little-endian float32, unit length
    PRIMARY KEY (document_id, ordinal)
);

-- What is left of a job when it is over.
ALTER TABLE documents ADD COLUMN settled_at INTEGER;
ALTER TABLE documents ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
CREATE INDEX documents_unfinished ON documents (id) WHERE status <> 'completed';
