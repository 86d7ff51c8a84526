//! A database as the first schema left it is taken along whole.

use sqlx::Connection;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use std::fs;
use std::path::Path;
use tintype_model::access::Reach;
use tintype_model::reclaim::freed_by_each;
use tintype_model::settings::Limit;
use tintype_model::{DiskId, LayerId, SnapshotId, VmId};
use tintype_store::{Order, Page, SnapshotFilter, Store, VmFilter};
use uuid::Uuid;

const CONFIG: &str = r#"{"vcpus":1,"memory_bytes":1048576,"firmware":"bios","kernel":null,
    "nics":[],"disks":[{"id":"00000000-0000-0000-0000-0000000000d1","size_bytes":512,
    "role":"data"}],"platform":{"machine":"m","cpu":"c","accel":"tcg"}}"#;

/// Makes a database of the first schema, with a machine that has a snapshot.
async fn first_schema(folder: &Path) -> SqliteConnection {
    let migrations = folder.join("migrations");
    fs::create_dir(&migrations).unwrap();
    let first = include_str!("../migrations/0001_timeline.sql");
    fs::write(migrations.join("0001_timeline.sql"), first).unwrap();
    let options = SqliteConnectOptions::new()
        .filename(folder.join("tintype.db"))
        .create_if_missing(true)
        .foreign_keys(true);
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    Migrator::new(migrations).await.unwrap().run(&mut database).await.unwrap();
    let id = |n: u128| Uuid::from_u128(n).to_string();
    let vm = "INSERT INTO vm (id, name, state, config, generation, current_snapshot, created_at)
              VALUES ($1, 'web', 'stopped', $2, $1, $3, 5)";
    let query = sqlx::query(vm).bind(id(1)).bind(CONFIG).bind(id(2));
    query.execute(&mut database).await.unwrap();
    let snapshot = "INSERT INTO snapshot (id, vm, name, description, kind, consistency, state,
                    created_at, memory_bytes, config)
                    VALUES ($1, $2, 'one', 'before', 'disk', 'clean', 'ready', 6, 0, $3)";
    let query = sqlx::query(snapshot).bind(id(2)).bind(id(1)).bind(CONFIG);
    query.execute(&mut database).await.unwrap();
    for (layer, parent) in [(id(3), None), (id(4), Some(id(3)))] {
        let insert = "INSERT INTO layer VALUES ($1, $2, $3, $4, 'qcow2', 0, 4096)";
        let query = sqlx::query(insert).bind(layer).bind(id(1)).bind(id(0xd1)).bind(parent);
        query.execute(&mut database).await.unwrap();
    }
    for (insert, owner, layer) in [
        ("INSERT INTO snapshot_layer VALUES ($1, $2, $3)", id(2), id(3)),
        ("INSERT INTO active VALUES ($1, $2, $3)", id(1), id(4)),
    ] {
        let query = sqlx::query(insert).bind(owner).bind(id(0xd1)).bind(layer);
        query.execute(&mut database).await.unwrap();
    }
    database
}

#[tokio::test]
async fn a_database_of_the_first_schema_is_taken_along() {
    let folder = tempfile::tempdir().unwrap();
    first_schema(folder.path()).await.close().await.unwrap();
    for _ in 0..2 {
        let store = Store::open(&folder.path().join("tintype.db")).await.unwrap();
        let mut unit = store.read().await.unwrap();
        let timeline = unit.timeline(VmId(Uuid::from_u128(1))).await.unwrap().unwrap();
        assert_eq!(timeline.flaw(), None);
        assert_eq!(timeline.vm.settings.snapshot_limit, Limit::Most(3));
        assert_eq!(timeline.vm.current, Some(SnapshotId(Uuid::from_u128(2))));
        let disk = DiskId(Uuid::from_u128(0xd1));
        assert_eq!(timeline.active[&disk], LayerId(Uuid::from_u128(4)));
        let one = &timeline.snapshots[&SnapshotId(Uuid::from_u128(2))];
        assert_eq!(one.layers[&disk], LayerId(Uuid::from_u128(3)));
        let page = Page::new(Order::Name, None, None);
        let vms = unit.vms(Reach::All, &VmFilter::default(), &page).await.unwrap();
        assert_eq!((vms[0].vm.name.as_str(), vms[0].account.as_str()), ("web", "admin"));
        let filter =
            SnapshotFilter { keywords: vec!["before".into()], ..SnapshotFilter::default() };
        let found = unit.snapshots(Reach::All, &filter, &page).await.unwrap();
        assert_eq!(found.len(), 1, "words of old snapshots are found");
        let admin = unit.account_named("admin").await.unwrap().unwrap();
        assert_eq!((admin.usage, vms[0].usage), (timeline.usage(), timeline.usage()));
        let frees = freed_by_each(&timeline)[&one.id];
        assert_eq!(found[0].size_bytes, frees);
        drop(unit);
        store.close().await;
    }
}
