-- Snapshots made before one that was there already, as when a clock is set back. All others are in
-- the order of time by their row numbers.
ALTER TABLE snapshot ADD COLUMN late BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE snapshot SET late = TRUE WHERE seq IN (
    SELECT seq FROM (
        SELECT seq, created_at, MAX(created_at) OVER (
            ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS latest FROM snapshot
    ) WHERE created_at < latest
);
CREATE INDEX snapshot_late ON snapshot (created_at) WHERE late;

-- All of a snapshot, beside the others of its machine: a timeline is read whole, and its snapshots
-- were made over a long time, each on another page.
DROP INDEX snapshot_of_vm;
CREATE INDEX snapshot_of_vm ON snapshot (
    vm, created_at, id, account, name, description, kind, consistency, state, reason, parent,
    created_by, ready_at, verified_at, expires_at, protected, safety, pause_ms, memory_bytes,
    size_bytes, config, memory_mark, saving, late
);

-- What a machine's layers are, and which of them its snapshots hold, lies together: a timeline is
-- read whole, and what its machine has was made over a long time.
CREATE TABLE new_layer (
    vm TEXT NOT NULL REFERENCES vm (id),
    -- Unique in its machine: a linked clone has layers of the same id, which are the same file.
    id TEXT NOT NULL,
    disk TEXT NOT NULL,
    parent TEXT,
    format TEXT NOT NULL,
    rank BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    -- Whether another machine has it as well.
    shared BOOLEAN NOT NULL DEFAULT FALSE,
    mark TEXT,
    PRIMARY KEY (vm, id)
) WITHOUT ROWID;
INSERT INTO new_layer
    SELECT vm, id, disk, parent, format, rank, size_bytes, shared, mark FROM layer ORDER BY vm, id;

CREATE TABLE new_snapshot_layer (
    vm TEXT NOT NULL REFERENCES vm (id),
    snapshot TEXT NOT NULL,
    disk TEXT NOT NULL,
    layer TEXT NOT NULL,
    PRIMARY KEY (vm, snapshot, disk)
) WITHOUT ROWID;
INSERT INTO new_snapshot_layer
    SELECT snapshot.vm, snapshot.id, snapshot_layer.disk, snapshot_layer.layer
    FROM snapshot_layer JOIN snapshot ON snapshot.id = snapshot_layer.snapshot ORDER BY 1, 2, 3;

DROP TABLE layer;
DROP TABLE snapshot_layer;
ALTER TABLE new_layer RENAME TO layer;
ALTER TABLE new_snapshot_layer RENAME TO snapshot_layer;
CREATE INDEX layer_by_id ON layer (id);
CREATE INDEX layer_shared ON layer (vm) WHERE shared;
