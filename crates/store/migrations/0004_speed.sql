-- How often a machine's timeline was recorded, so that who writes knows whether what was read
-- before still stands.
ALTER TABLE vm ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;

-- Every three letters of the names of machines, as of snapshots.
ALTER TABLE vm ADD COLUMN seq BIGINT NOT NULL DEFAULT 0;
UPDATE vm SET seq = rowid;
CREATE UNIQUE INDEX vm_by_seq ON vm (seq);
CREATE VIRTUAL TABLE vm_words
    USING fts5 (name, content = 'vm', content_rowid = 'seq', tokenize = 'trigram',
                detail = 'full');
INSERT INTO vm_words (rowid, name) SELECT seq, name FROM vm;
CREATE TRIGGER vm_words_added AFTER INSERT ON vm BEGIN
    INSERT INTO vm_words (rowid, name) VALUES (new.seq, new.name);
END;
CREATE TRIGGER vm_words_gone AFTER DELETE ON vm BEGIN
    INSERT INTO vm_words (vm_words, rowid, name) VALUES ('delete', old.seq, old.name);
END;
CREATE TRIGGER vm_words_changed AFTER UPDATE OF name ON vm BEGIN
    INSERT INTO vm_words (vm_words, rowid, name) VALUES ('delete', old.seq, old.name);
    INSERT INTO vm_words (rowid, name) VALUES (new.seq, new.name);
END;
