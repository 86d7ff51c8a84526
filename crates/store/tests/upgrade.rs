//! A database as the first schema left it is taken along whole.

use rusqlite::{Connection, params};
use std::path::Path;
use tintype_model::access::Reach;
use tintype_model::reclaim::freed_by_each;
use tintype_model::settings::Limit;
use tintype_model::{DiskId, LayerId, SnapshotId, VmId};
use tintype_store::{Order, Page, SnapshotFilter, Store, StoreError, VmFilter};
use uuid::Uuid;

const CONFIG: &str = r#"{"vcpus":1,"memory_bytes":1048576,"firmware":"bios","kernel":null,
    "nics":[],"disks":[{"id":"00000000-0000-0000-0000-0000000000d1","size_bytes":512,
    "role":"data"}],"platform":{"machine":"m","cpu":"c","accel":"tcg"}}"#;

/// Makes a database of the first schema, with a machine that has a snapshot.
fn first_schema(file: &Path) {
    let database = Connection::open(file).unwrap();
    database.execute_batch(include_str!("../migrations/0001_timeline.sql")).unwrap();
    database.pragma_update(None, "user_version", 1).unwrap();
    let id = |n: u128| Uuid::from_u128(n).to_string();
    let vm = "INSERT INTO vm (id, name, state, config, generation, current_snapshot, created_at)
              VALUES (?1, 'web', 'stopped', ?2, ?1, ?3, 5)";
    database.execute(vm, params![id(1), CONFIG, id(2)]).unwrap();
    let snapshot = "INSERT INTO snapshot (id, vm, name, description, kind, consistency, state,
                    created_at, memory_bytes, config)
                    VALUES (?1, ?2, 'one', 'before', 'disk', 'clean', 'ready', 6, 0, ?3)";
    database.execute(snapshot, params![id(2), id(1), CONFIG]).unwrap();
    for (layer, parent) in [(id(3), None), (id(4), Some(id(3)))] {
        let insert = "INSERT INTO layer VALUES (?1, ?2, ?3, ?4, 'qcow2', 0, 4096)";
        database.execute(insert, params![layer, id(1), id(0xd1), parent]).unwrap();
    }
    for (insert, owner, layer) in [
        ("INSERT INTO snapshot_layer VALUES (?1, ?2, ?3)", id(2), id(3)),
        ("INSERT INTO active VALUES (?1, ?2, ?3)", id(1), id(4)),
    ] {
        database.execute(insert, params![owner, id(0xd1), layer]).unwrap();
    }
}

#[tokio::test]
async fn a_database_of_the_first_schema_is_taken_along() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tintype.db");
    first_schema(&file);
    for _ in 0..2 {
        let store = Store::open(&file).unwrap();
        let mut unit = store.read().await.unwrap();
        let timeline = unit.timeline(VmId(Uuid::from_u128(1))).unwrap().unwrap();
        assert_eq!(timeline.flaw(), None);
        assert_eq!(timeline.vm.settings.snapshot_limit, Limit::Most(3));
        assert_eq!(timeline.vm.current, Some(SnapshotId(Uuid::from_u128(2))));
        let disk = DiskId(Uuid::from_u128(0xd1));
        assert_eq!(timeline.active[&disk], LayerId(Uuid::from_u128(4)));
        let one = &timeline.snapshots[&SnapshotId(Uuid::from_u128(2))];
        assert_eq!(one.layers[&disk], LayerId(Uuid::from_u128(3)));
        let page = Page::new(Order::Name, None, None);
        let vms = unit.vms(Reach::All, &VmFilter::default(), &page).unwrap();
        assert_eq!((vms[0].vm.name.as_str(), vms[0].account.as_str()), ("web", "admin"));
        let filter =
            SnapshotFilter { keywords: vec!["before".into()], ..SnapshotFilter::default() };
        let found = unit.snapshots(Reach::All, &filter, &page).unwrap();
        assert_eq!(found.len(), 1, "words of old snapshots are found");
        let admin = unit.account_named("admin").unwrap().unwrap();
        assert_eq!((admin.usage, vms[0].usage), (timeline.usage(), timeline.usage()));
        let frees = freed_by_each(&timeline)[&one.id];
        assert_eq!(found[0].size_bytes, frees);
        drop(unit);
        store.close().await;
    }
}

/// What a newer release left is not touched by an older one.
#[test]
fn a_database_of_a_newer_release_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tintype.db");
    drop(Store::open(&file).unwrap());
    let version = |database: &Connection| {
        database.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap()
    };
    let database = Connection::open(&file).unwrap();
    let newer = version(&database) + 1;
    database.pragma_update(None, "user_version", newer).unwrap();
    let refused = Store::open(&file).unwrap_err();
    assert!(matches!(refused, StoreError::Newer), "{refused}");
    assert_eq!(refused.to_string(), "database schema: it is of a newer release of Tintype");
    assert_eq!(version(&database), newer);
}
