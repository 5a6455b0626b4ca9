-- What caches must forget. They hold texts of documents, in other processes' memory and in a Redis that may be out of
-- reach right now; who keeps one follows these two tables, from where it has got to.

-- Erasures, a row per store: what was read from it before its write `removed` has to go, and what was read from an index
-- that did not show write `replaced` yet. Triggers keep it, so that no way to erase a document can forget it, and no
-- kill can come in between.
CREATE TABLE erasures (
    store_id TEXT PRIMARY KEY,                   -- references nothing: it outlives its store
    tenant   TEXT NOT NULL,
    removed  INTEGER NOT NULL,
    replaced INTEGER NOT NULL,
    number   INTEGER NOT NULL,                   -- counts changes of all rows: who has seen up to one asks for the next
    at       INTEGER NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX erasures_by_number ON erasures (number);
INSERT INTO counters VALUES ('erasure', 0);
-- Which database this is, to a Redis that others use as well; another one after a restore.
INSERT INTO counters VALUES ('identity', abs(random() >> 12));

-- Inserted here, it is merged there.
CREATE VIEW erasing AS SELECT store_id, tenant, removed, replaced FROM erasures;
CREATE TRIGGER erased INSTEAD OF INSERT ON erasing BEGIN
    UPDATE counters SET value = value + 1 WHERE name = 'erasure';
    INSERT INTO erasures SELECT new.store_id, new.tenant, new.removed, new.replaced, value,
                                CAST(strftime('%s', 'now') AS INTEGER) FROM counters WHERE name = 'erasure'
        ON CONFLICT (store_id) DO UPDATE SET
            removed = max(removed, excluded.removed), replaced = max(replaced, excluded.replaced),
            number = excluded.number, at = excluded.at;
END;

-- A delete takes its seq first. What is replaced has its row below, and what a deleted store loses slice by slice its own.
CREATE TRIGGER erasure_of_document AFTER DELETE ON documents WHEN old.dead_seq IS NULL BEGIN
    INSERT INTO erasing SELECT s.id, s.tenant, c.value, 0 FROM vector_stores s, counters c
        WHERE s.id = old.store_id AND s.deleted_at IS NULL AND c.name = 'seq';
END;
CREATE TRIGGER erasure_of_version AFTER UPDATE OF dead_seq ON documents
    WHEN old.dead_seq IS NULL AND new.dead_seq IS NOT NULL AND old.status = 'completed' BEGIN
    INSERT INTO erasing SELECT id, tenant, 0, new.dead_seq FROM vector_stores WHERE id = new.store_id;
END;
-- No cache keeps anything for longer than the 30 days of MAX_TTL_SECONDS: by then its row has nothing left to say.
CREATE TRIGGER erasure_of_store AFTER UPDATE OF deleted_at ON vector_stores
    WHEN old.deleted_at IS NULL AND new.deleted_at IS NOT NULL BEGIN
    INSERT INTO erasing VALUES (new.id, new.tenant, new.seq, 0);
    DELETE FROM erasures WHERE at < CAST(strftime('%s', 'now') AS INTEGER) - 35 * 86400;
END;

-- Purges, the last ones: so that every worker of the host hears of one, whether or not there is a Redis to tell it.
CREATE TABLE purges (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    prefix TEXT NOT NULL
);
CREATE TRIGGER old_purges AFTER INSERT ON purges BEGIN
    DELETE FROM purges WHERE number <= new.number - 1000;
END;
