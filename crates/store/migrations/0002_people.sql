-- Domains, accounts and users; what machines and snapshots may; what happened. Tables that others
-- refer to are made anew: SQLite changes no keys.
CREATE TABLE domain (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    parent TEXT REFERENCES domain (id),
    -- The ids from the root down to this one, each followed by a slash.
    lineage TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    UNIQUE (parent, name)
);

CREATE TABLE account (
    id TEXT PRIMARY KEY NOT NULL,
    domain TEXT NOT NULL REFERENCES domain (id),
    name TEXT NOT NULL UNIQUE,
    -- JSON, see the model's Quota.
    quota TEXT NOT NULL,
    snapshots BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX account_of_domain ON account (domain);

CREATE TABLE "user" (
    id TEXT PRIMARY KEY NOT NULL,
    account TEXT NOT NULL REFERENCES account (id),
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    -- As argon2 leaves it; without one nobody signs in by password.
    password TEXT,
    created_at BIGINT NOT NULL
);
CREATE INDEX user_of_account ON "user" (account);

CREATE TABLE token (
    id TEXT PRIMARY KEY NOT NULL,
    "user" TEXT NOT NULL REFERENCES "user" (id),
    name TEXT NOT NULL,
    scope TEXT NOT NULL,
    -- SHA-256 of the token, which has 256 random bits.
    hash TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT
);
CREATE INDEX token_of_user ON token ("user");

CREATE TABLE profile (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    settings TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE hypervisor (
    kind TEXT PRIMARY KEY NOT NULL,
    snapshots_enabled BOOLEAN NOT NULL
);
ALTER TABLE host ADD COLUMN snapshots_enabled BOOLEAN NOT NULL DEFAULT TRUE;

CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at BIGINT NOT NULL,
    "user" TEXT NOT NULL,
    kind TEXT NOT NULL,
    account TEXT,
    vm TEXT,
    snapshot TEXT,
    operation TEXT,
    detail TEXT NOT NULL
);
CREATE INDEX event_of_account ON event (account, id);

INSERT INTO domain VALUES (
    '00000000-0000-0000-0000-000000000001', 'root', NULL,
    '00000000-0000-0000-0000-000000000001/', 0);
INSERT INTO account VALUES (
    '00000000-0000-0000-0000-000000000002', '00000000-0000-0000-0000-000000000001', 'admin',
    '{"snapshots":"unlimited","bytes":"unlimited"}', 0, 0, 0);
INSERT INTO "user" VALUES (
    '00000000-0000-0000-0000-000000000003', '00000000-0000-0000-0000-000000000002', 'admin',
    'administrator', NULL, 0);
INSERT INTO profile VALUES (
    '00000000-0000-0000-0000-000000000004', 'default',
    '{"snapshots_allowed":true,"memory_allowed":false,"snapshot_limit":{"most":3},"protect_snapshots":false}',
    0);

CREATE TABLE new_vm (
    id TEXT PRIMARY KEY NOT NULL,
    account TEXT NOT NULL REFERENCES account (id),
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    config TEXT NOT NULL,
    settings TEXT NOT NULL,
    generation TEXT NOT NULL,
    current_snapshot TEXT,
    operation TEXT,
    reclaim TEXT,
    reclaim_work TEXT,
    -- What the machine has in snapshots; the account's numbers are the sums of these.
    snapshots BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    -- Whether there is work to do on its layers.
    restless BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (account, name)
);
INSERT INTO new_vm
    SELECT id, '00000000-0000-0000-0000-000000000002', name, state, config,
           '{"snapshots_allowed":true,"memory_allowed":false,"snapshot_limit":{"most":3},"protect_snapshots":false}',
           generation, current_snapshot, operation, reclaim, reclaim_work, 0, 0, TRUE, created_at
    FROM vm;

CREATE TABLE new_snapshot (
    -- Names the row for the index of words.
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    vm TEXT NOT NULL REFERENCES new_vm (id),
    account TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    kind TEXT NOT NULL,
    consistency TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    parent TEXT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    ready_at BIGINT,
    verified_at BIGINT,
    expires_at BIGINT,
    protected BOOLEAN NOT NULL,
    safety BOOLEAN NOT NULL,
    pause_ms BIGINT,
    memory_bytes BIGINT NOT NULL,
    -- What deleting it alone would give back.
    size_bytes BIGINT NOT NULL,
    config TEXT NOT NULL,
    UNIQUE (vm, name)
);
INSERT INTO new_snapshot
    SELECT NULL, id, vm, '00000000-0000-0000-0000-000000000002', name, description, kind,
           consistency, state, reason, parent, created_at, '', ready_at, NULL, NULL, FALSE, FALSE,
           pause_ms, memory_bytes, memory_bytes, config
    FROM snapshot;

CREATE TABLE new_layer (
    vm TEXT NOT NULL REFERENCES new_vm (id),
    -- Unique in its machine: a linked clone has layers of the same id, which are the same file.
    id TEXT NOT NULL,
    disk TEXT NOT NULL,
    parent TEXT,
    format TEXT NOT NULL,
    rank BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    PRIMARY KEY (vm, id)
);
INSERT INTO new_layer SELECT vm, id, disk, parent, format, rank, size_bytes FROM layer;

CREATE TABLE new_snapshot_layer (
    snapshot TEXT NOT NULL REFERENCES new_snapshot (id),
    disk TEXT NOT NULL,
    layer TEXT NOT NULL,
    PRIMARY KEY (snapshot, disk)
);
INSERT INTO new_snapshot_layer SELECT snapshot, disk, layer FROM snapshot_layer;

CREATE TABLE new_active (
    vm TEXT NOT NULL REFERENCES new_vm (id),
    disk TEXT NOT NULL,
    layer TEXT NOT NULL,
    PRIMARY KEY (vm, disk)
);
INSERT INTO new_active SELECT vm, disk, layer FROM active;

DROP TABLE active;
DROP TABLE snapshot_layer;
DROP TABLE layer;
DROP TABLE snapshot;
DROP TABLE vm;
ALTER TABLE new_vm RENAME TO vm;
ALTER TABLE new_snapshot RENAME TO snapshot;
ALTER TABLE new_layer RENAME TO layer;
ALTER TABLE new_snapshot_layer RENAME TO snapshot_layer;
ALTER TABLE new_active RENAME TO active;

-- With the name, so that a keyword is looked for without reading the rows.
CREATE INDEX vm_by_time ON vm (created_at, id, name);
CREATE INDEX vm_of_account ON vm (account, created_at, id, name);
CREATE INDEX vm_by_name ON vm (name);
CREATE INDEX vm_restless ON vm (id) WHERE restless;
CREATE INDEX layer_by_id ON layer (id);
CREATE INDEX snapshot_by_time ON snapshot (created_at, id);
CREATE INDEX snapshot_by_name ON snapshot (name, id);
CREATE INDEX snapshot_of_vm ON snapshot (vm, created_at, id);
CREATE INDEX snapshot_of_account ON snapshot (account, created_at, id);
CREATE INDEX snapshot_of_account_by_name ON snapshot (account, name, id);
CREATE INDEX snapshot_of_kind ON snapshot (kind, created_at, id);
CREATE INDEX snapshot_of_state ON snapshot (state, created_at, id);
CREATE INDEX snapshot_by_expiry ON snapshot (expires_at) WHERE expires_at IS NOT NULL;

-- Every three letters of name and description, so that a keyword is found among a million.
CREATE VIRTUAL TABLE snapshot_words
    USING fts5 (name, description, content = 'snapshot', content_rowid = 'seq',
                tokenize = 'trigram', detail = 'full');
INSERT INTO snapshot_words (rowid, name, description)
    SELECT seq, name, description FROM snapshot;
CREATE TRIGGER snapshot_words_added AFTER INSERT ON snapshot BEGIN
    INSERT INTO snapshot_words (rowid, name, description)
        VALUES (new.seq, new.name, new.description);
END;
CREATE TRIGGER snapshot_words_gone AFTER DELETE ON snapshot BEGIN
    INSERT INTO snapshot_words (snapshot_words, rowid, name, description)
        VALUES ('delete', old.seq, old.name, old.description);
END;
CREATE TRIGGER snapshot_words_changed AFTER UPDATE OF name, description ON snapshot BEGIN
    INSERT INTO snapshot_words (snapshot_words, rowid, name, description)
        VALUES ('delete', old.seq, old.name, old.description);
    INSERT INTO snapshot_words (rowid, name, description)
        VALUES (new.seq, new.name, new.description);
END;

-- What is derived of timelines, as the model derives it.
UPDATE vm SET
    snapshots = (SELECT COUNT(*) FROM snapshot
                 WHERE snapshot.vm = vm.id AND snapshot.state <> 'unavailable'),
    bytes = (SELECT COALESCE(SUM(CASE
                 WHEN state <> 'creating' THEN memory_bytes
                 WHEN kind = 'disk' THEN 33554432
                 ELSE 33554432 + json_extract(config, '$.memory_bytes') END), 0)
             FROM snapshot WHERE snapshot.vm = vm.id AND snapshot.state <> 'unavailable')
          + (SELECT COALESCE(SUM(size_bytes), 0) FROM layer WHERE layer.vm = vm.id
             AND NOT EXISTS (SELECT 1 FROM active
                             WHERE active.vm = vm.id AND active.layer = layer.id));
UPDATE account SET
    snapshots = (SELECT COALESCE(SUM(snapshots), 0) FROM vm WHERE vm.account = account.id),
    bytes = (SELECT COALESCE(SUM(bytes), 0) FROM vm WHERE vm.account = account.id);
UPDATE snapshot SET size_bytes = memory_bytes
    + (SELECT COALESCE(SUM(layer.size_bytes), 0) FROM snapshot_layer
       JOIN layer ON layer.vm = snapshot.vm AND layer.id = snapshot_layer.layer
       WHERE snapshot_layer.snapshot = snapshot.id
       AND NOT EXISTS (SELECT 1 FROM snapshot_layer AS other WHERE other.layer = layer.id
                       AND other.snapshot <> snapshot.id)
       AND NOT EXISTS (SELECT 1 FROM layer AS child
                       WHERE child.vm = layer.vm AND child.parent = layer.id));

ALTER TABLE operation ADD COLUMN account TEXT NOT NULL
    DEFAULT '00000000-0000-0000-0000-000000000002';
ALTER TABLE operation ADD COLUMN asker TEXT NOT NULL
    DEFAULT '{"name":"","role":"administrator","force":false}';
CREATE INDEX operation_of_account ON operation (account, created_at, id);
CREATE INDEX operation_of_vm ON operation (vm, created_at, id);

-- What was remembered is not known by user: it is kept for a day only.
DROP TABLE idempotency;
CREATE TABLE idempotency (
    token TEXT NOT NULL,
    key TEXT NOT NULL,
    -- SHA-256 of the request.
    request TEXT NOT NULL,
    status BIGINT NOT NULL,
    location TEXT,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (token, key)
);
CREATE INDEX idempotency_by_time ON idempotency (created_at);
