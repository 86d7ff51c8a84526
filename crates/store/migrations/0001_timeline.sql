-- Ids and enumerations are TEXT, moments are milliseconds since 1970, structures are JSON in TEXT.
CREATE TABLE vm (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    config TEXT NOT NULL,
    generation TEXT NOT NULL,
    current_snapshot TEXT,
    operation TEXT,
    reclaim TEXT,
    reclaim_work TEXT,
    created_at BIGINT NOT NULL
);
CREATE INDEX vm_by_time ON vm (created_at, id);

CREATE TABLE snapshot (
    id TEXT PRIMARY KEY NOT NULL,
    vm TEXT NOT NULL REFERENCES vm (id),
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    kind TEXT NOT NULL,
    consistency TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    parent TEXT,
    created_at BIGINT NOT NULL,
    ready_at BIGINT,
    pause_ms BIGINT,
    memory_bytes BIGINT NOT NULL,
    config TEXT NOT NULL,
    UNIQUE (vm, name)
);
CREATE INDEX snapshot_by_time ON snapshot (created_at, id);

CREATE TABLE layer (
    id TEXT PRIMARY KEY NOT NULL,
    vm TEXT NOT NULL REFERENCES vm (id),
    disk TEXT NOT NULL,
    parent TEXT,
    format TEXT NOT NULL,
    rank BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL
);
CREATE INDEX layer_of_vm ON layer (vm);

-- The layer that holds a disk as a snapshot saw it.
CREATE TABLE snapshot_layer (
    snapshot TEXT NOT NULL REFERENCES snapshot (id),
    disk TEXT NOT NULL,
    layer TEXT NOT NULL,
    PRIMARY KEY (snapshot, disk)
);

-- The layer that a disk is written to.
CREATE TABLE active (
    vm TEXT NOT NULL REFERENCES vm (id),
    disk TEXT NOT NULL,
    layer TEXT NOT NULL,
    PRIMARY KEY (vm, disk)
);

CREATE TABLE operation (
    id TEXT PRIMARY KEY NOT NULL,
    vm TEXT NOT NULL,
    snapshot TEXT,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    command TEXT NOT NULL,
    phase TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE INDEX operation_by_time ON operation (created_at, id);
CREATE INDEX operation_by_state ON operation (state);

-- Answers to requests that carried an Idempotency-Key, so that a repeated one does nothing twice.
CREATE TABLE idempotency (
    key TEXT PRIMARY KEY NOT NULL,
    request TEXT NOT NULL,
    status BIGINT NOT NULL,
    location TEXT,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE host (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    pool TEXT NOT NULL
);
