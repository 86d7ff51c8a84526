//! A database as large as a cloud's, for benchmarks.

use crate::sql::sql;
use crate::{Store, StoreError};

/// Ten domains beneath the root, each with twenty accounts.
const PEOPLE: [&str; 2] = [
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10)
     INSERT INTO domain (id, name, parent, lineage, created_at)
     SELECT printf('10000000-0000-4000-8000-%012x', i), printf('d%d', i),
            '00000000-0000-0000-0000-000000000001',
            printf('00000000-0000-0000-0000-000000000001/10000000-0000-4000-8000-%012x/', i), i
     FROM n",
    "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 199)
     INSERT INTO account (id, domain, name, quota, snapshots, bytes, created_at)
     SELECT printf('20000000-0000-4000-8000-%012x', i),
            printf('10000000-0000-4000-8000-%012x', i % 10 + 1), printf('a%d', i),
            '{\"snapshots\":\"unlimited\",\"bytes\":\"unlimited\"}', 0, 0, i
     FROM n",
];

/// Machines that are off, over all accounts, each with a disk of one layer for each snapshot and
/// one that is active. Every twentieth layer was folded, and lies on nothing.
const MACHINES: &str =
    "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < $1 - 1)
     INSERT INTO vm (id, account, name, state, config, settings, generation, current_snapshot,
                     snapshots, bytes, restless, created_at, seq)
     SELECT printf('30000000-0000-4000-8000-%012x', i),
            printf('20000000-0000-4000-8000-%012x', i % 200), printf('vm%d', i), 'stopped',
            json_object('vcpus', 1, 'memory_bytes', 1073741824, 'firmware', 'bios',
                        'kernel', NULL, 'nics', json_array(),
                        'disks', json_array(json_object(
                            'id', printf('40000000-0000-4000-8000-%012x', i),
                            'size_bytes', 1073741824, 'role', 'data')),
                        'platform', json_object('machine', 'm', 'cpu', 'c', 'accel', 'tcg')),
            '{\"snapshots_allowed\":true,\"memory_allowed\":false,' ||
            '\"snapshot_limit\":\"unlimited\",\"protect_snapshots\":false}',
            printf('50000000-0000-4000-8000-%012x', i),
            printf('60000000-0000-4000-8000-%012x', i + $1 * ($2 - 1)), $2, $2 * 1048576, FALSE, i,
            i + 1
     FROM n";

/// Snapshots of all machines by turns, in a row for each, in the order of time but for one of a
/// thousand, at which the clock was set back; one of 10,000 is unavailable, a tenth hold memory.
const SNAPSHOTS: &str =
    "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < $1 * $2 - 1)
     INSERT INTO snapshot (id, vm, account, name, description, kind, consistency, state, parent,
                           created_at, created_by, ready_at, protected, safety, pause_ms,
                           memory_bytes, size_bytes, late, config)
     SELECT printf('60000000-0000-4000-8000-%012x', i),
            printf('30000000-0000-4000-8000-%012x', i % $1),
            printf('20000000-0000-4000-8000-%012x', i % $1 % 200), printf('snapshot %d', i),
            printf('before the upgrade of %d', i * 7919 % 1000003 % 1000),
            CASE WHEN (i + i / $1) % 10 = 0 THEN 'disk-and-memory' ELSE 'disk' END, 'crash',
            CASE WHEN i % 9999 = 77 THEN 'unavailable' ELSE 'ready' END,
            CASE WHEN i < $1 THEN NULL ELSE printf('60000000-0000-4000-8000-%012x', i - $1) END,
            i - CASE WHEN i % 1009 = 1008 THEN 500 ELSE 0 END, 'seed', i, FALSE, FALSE, 20, 0,
            1048576, i % 1009 = 1008,
            (SELECT config FROM vm WHERE vm.id = printf('30000000-0000-4000-8000-%012x', i % $1))
     FROM n";

const LAYERS: [&str; 3] = [
    "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < $1 * ($2 + 1) - 1)
     INSERT INTO layer (vm, id, disk, parent, format, rank, size_bytes)
     SELECT printf('30000000-0000-4000-8000-%012x', i % $1),
            printf('70000000-0000-4000-8000-%012x', i),
            printf('40000000-0000-4000-8000-%012x', i % $1),
            CASE WHEN i / $1 % 20 = 0 THEN NULL
                 ELSE printf('70000000-0000-4000-8000-%012x', i - $1) END,
            'qcow2', 0, 1048576
     FROM n",
    "INSERT INTO active (vm, disk, layer)
     SELECT vm, disk, MAX(id) FROM layer WHERE $1 > 0 AND $2 > 0 GROUP BY vm, disk",
    "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < $1 * $2 - 1)
     INSERT INTO snapshot_layer (vm, snapshot, disk, layer)
     SELECT printf('30000000-0000-4000-8000-%012x', i % $1),
            printf('60000000-0000-4000-8000-%012x', i),
            printf('40000000-0000-4000-8000-%012x', i % $1),
            printf('70000000-0000-4000-8000-%012x', i)
     FROM n",
];

impl Store {
    /// Fills an empty database with so many machines, each with so many snapshots.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn seed(&self, machines: u32, snapshots_each: u32) -> Result<(), StoreError> {
        let mut unit = self.write().await?;
        for statement in PEOPLE {
            unit.run(sql(statement))?;
        }
        for statement in [MACHINES, SNAPSHOTS].into_iter().chain(LAYERS) {
            unit.run(sql(statement).bind(i64::from(machines)).bind(i64::from(snapshots_each)))?;
        }
        unit.commit().await?;
        let mut unit = self.write().await?;
        unit.run(sql("ANALYZE"))?;
        unit.commit().await
    }
}
