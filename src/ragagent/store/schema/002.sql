-- Vectors apart from the text, in two tables: a store's searches use one, and the other takes the vectors of its next
-- model while they are made, or keeps those of its last one to go back to. Which is which, one row says: see `slot`.

CREATE TABLE vectors_0 (
    chunk_id INTEGER PRIMARY KEY REFERENCES chunks (id) ON DELETE CASCADE,
    vector   BLOB NOT NULL                          -- little-endian float32, unit length
);
CREATE TABLE vectors_1 (
    chunk_id INTEGER PRIMARY KEY REFERENCES chunks (id) ON DELETE CASCADE,
    vector   BLOB NOT NULL
);
INSERT INTO vectors_0 SELECT id, vector FROM chunks;
ALTER TABLE chunks DROP COLUMN vector;

-- `model` and `dimension` are those of the slot. `edition` names the directory that is searched: index/<id>, or
-- index/<id>-<edition>. All four change in one statement, so no reader ever meets vectors of two models.
ALTER TABLE vector_stores ADD COLUMN slot INTEGER NOT NULL DEFAULT 0 CHECK (slot IN (0, 1));
ALTER TABLE vector_stores ADD COLUMN edition INTEGER NOT NULL DEFAULT 0;
