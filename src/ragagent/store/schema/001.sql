-- The truth. Everything under index/ can be rebuilt from these tables.

-- `seq` is the write counter: every write to a store takes the next number, and a manifest that says N shows all up to N.
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counters VALUES ('seq', 0);

CREATE TABLE vector_stores (
    id             TEXT PRIMARY KEY,
    tenant         TEXT NOT NULL,
    name           TEXT NOT NULL,
    metadata       TEXT NOT NULL DEFAULT '{}',
    model          TEXT NOT NULL,                -- the embedder of every vector in it; two models never mix
    dimension      INTEGER NOT NULL,
    chunk_tokens   INTEGER NOT NULL,
    overlap_tokens INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    seq            INTEGER NOT NULL,             -- of the last write that touched this store
    deleted_at     INTEGER                       -- gone for readers at once; rows follow in the background
);
CREATE INDEX vector_stores_by_tenant ON vector_stores (tenant, created_at, id);

CREATE TABLE files (
    id         TEXT PRIMARY KEY,
    tenant     TEXT NOT NULL,
    filename   TEXT NOT NULL,
    purpose    TEXT NOT NULL,
    bytes      INTEGER NOT NULL,
    sha256     TEXT NOT NULL,
    key_id     TEXT,                             -- of the uploader: a key bound to stores sees its own files and theirs
    created_at INTEGER NOT NULL
);
CREATE INDEX files_by_tenant ON files (tenant, created_at, id);
CREATE INDEX files_by_content ON files (tenant, sha256);

-- Apart from `files`, so that listing files never walks over their bytes.
CREATE TABLE file_contents (
    file_id TEXT PRIMARY KEY REFERENCES files (id) ON DELETE CASCADE,
    data    BLOB NOT NULL
);

CREATE TABLE batches (
    id           TEXT PRIMARY KEY,
    store_id     TEXT NOT NULL REFERENCES vector_stores (id) ON DELETE CASCADE,
    created_at   INTEGER NOT NULL,
    cancelled_at INTEGER
);

-- A document is a file in a store. Two versions of one external_id live side by side until the newer one is published.
CREATE TABLE documents (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    store_id       TEXT NOT NULL REFERENCES vector_stores (id) ON DELETE CASCADE,
    file_id        TEXT NOT NULL REFERENCES files (id) ON DELETE CASCADE,
    external_id    TEXT,                         -- NULL: attached by file id
    batch_id       TEXT REFERENCES batches (id) ON DELETE SET NULL,
    attributes     TEXT NOT NULL DEFAULT '{}',
    status         TEXT NOT NULL CHECK (status IN ('in_progress', 'completed', 'failed', 'cancelled')),
    error_code     TEXT,
    error_message  TEXT,
    chunk_tokens   INTEGER NOT NULL,
    overlap_tokens INTEGER NOT NULL,
    usage_bytes    INTEGER NOT NULL DEFAULT 0,
    created_at     INTEGER NOT NULL,
    seq            INTEGER NOT NULL,             -- of the write that brought it; its chunks are visible from there
    dead_seq       INTEGER                       -- of the write that replaced it; NULL while it is the newest
);
CREATE UNIQUE INDEX documents_by_file ON documents (store_id, file_id);
CREATE INDEX documents_by_external_id ON documents (store_id, external_id) WHERE external_id IS NOT NULL;
CREATE INDEX documents_by_age ON documents (store_id, created_at, id);
CREATE INDEX documents_by_batch ON documents (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX documents_of_file ON documents (file_id);
CREATE INDEX documents_dead ON documents (dead_seq) WHERE dead_seq IS NOT NULL;

CREATE TABLE chunks (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused: the index knows a chunk by this number alone
    store_id    TEXT NOT NULL,
    document_id INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    ordinal     INTEGER NOT NULL,
    start       INTEGER NOT NULL,                   -- character offsets into the parsed text
    "end"       INTEGER NOT NULL,
    text        TEXT NOT NULL,
    vector      BLOB NOT NULL,                      -- little-endian float32, unit length
    seq         INTEGER NOT NULL,
    dead_seq    INTEGER
);
CREATE INDEX chunks_by_document ON chunks (document_id);
CREATE INDEX chunks_by_seq ON chunks (store_id, seq);
CREATE INDEX chunks_dead ON chunks (store_id, dead_seq) WHERE dead_seq IS NOT NULL;

-- Chunks that are gone from `chunks` and still stand in the index; the next publish masks them and clears the row.
CREATE TABLE tombstones (
    chunk_id INTEGER PRIMARY KEY,
    store_id TEXT NOT NULL,
    seq      INTEGER NOT NULL
);
CREATE INDEX tombstones_by_store ON tombstones (store_id, seq);

-- One job per document, written in the document's own transaction: what is acknowledged is also queued.
CREATE TABLE jobs (
    id          TEXT PRIMARY KEY,
    store_id    TEXT NOT NULL,
    document_id INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    seq         INTEGER NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    traceparent TEXT,                               -- of the request that brought the document
    created_at  INTEGER NOT NULL
);
CREATE INDEX jobs_by_seq ON jobs (seq);
CREATE INDEX jobs_by_store ON jobs (store_id, seq);
CREATE INDEX jobs_of_document ON jobs (document_id);

CREATE TABLE api_keys (
    id         TEXT PRIMARY KEY,
    tenant     TEXT NOT NULL,
    name       TEXT NOT NULL,
    mac        BLOB NOT NULL,                       -- HMAC-SHA256 of the secret under the pepper in <data dir>/pepper
    stores     TEXT,                                -- JSON list of store ids; NULL: every store of the tenant
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
);
