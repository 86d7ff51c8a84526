//! A keyword finds what has it, and nothing else, whatever letters it is of (C31, E20); page after
//! page in order, whatever clocks did.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tintype_model::access::Reach;
use tintype_model::change::Change;
use tintype_model::config::{Accel, Config, Platform};
use tintype_model::settings::Settings;
use tintype_model::snapshot::{Consistency, Kind, Snapshot, SnapshotState};
use tintype_model::timeline::Timeline;
use tintype_model::vm::{Vm, VmState};
use tintype_model::{AccountId, Moment, SnapshotId, VmId};
use tintype_store::{Order, Page, SnapshotFilter, Store, VmFilter};
use uuid::Uuid;

fn vm(n: u128, name: &str) -> Vm {
    let platform = Platform { machine: String::new(), cpu: String::new(), accel: Accel::Tcg };
    Vm {
        id: VmId(Uuid::from_u128(n)),
        account: AccountId(Uuid::from_u128(2)),
        name: name.to_owned(),
        state: VmState::Stopped,
        config: Config::bare(platform),
        settings: Settings::default(),
        generation: Uuid::from_u128(n),
        current: None,
        operation: None,
        reclaim: None,
        created_at: Moment(0),
        findings: BTreeSet::new(),
    }
}

/// The names with a keyword, by the store.
async fn found(names: &[String], keyword: &str) -> Vec<String> {
    let store = Store::in_memory(|| false).unwrap();
    let mut unit = store.write().await.unwrap();
    for (n, name) in names.iter().enumerate() {
        unit.add_vm(&vm(n as u128, name)).unwrap();
    }
    unit.commit().await.unwrap();
    let filter = VmFilter { keyword: Some(keyword.to_owned()), ..VmFilter::default() };
    let mut unit = store.read().await.unwrap();
    let found = unit.vms(Reach::All, &filter, &Page::new(Order::Name, None, None)).unwrap();
    found.into_iter().map(|listed| listed.vm.name).collect()
}

fn snapshot(n: u128, vm: &Vm, name: &str, created_at: i64) -> Snapshot {
    Snapshot {
        id: SnapshotId(Uuid::from_u128(n)),
        vm: vm.id,
        name: name.to_owned(),
        description: String::new(),
        kind: Kind::Disk,
        consistency: Consistency::Crash,
        state: SnapshotState::Ready,
        reason: None,
        parent: None,
        created_at: Moment(created_at),
        ready_at: None,
        saving: None,
        pause_ms: None,
        memory_bytes: 0,
        config: vm.config.clone(),
        layers: BTreeMap::new(),
        created_by: String::new(),
        expires_at: None,
        protected: false,
        safety: false,
        verified_at: None,
    }
}

/// Snapshots of different machines may have one name.
const MACHINES: usize = 3;

fn machines() -> impl Iterator<Item = Vm> {
    (1..=MACHINES).map(|n| vm(n as u128, &format!("vm{n}")))
}

/// The ids of the snapshots that a filter lets through, gathered page by page.
async fn paged(
    snapshots: &[Snapshot],
    filter: &SnapshotFilter,
    order: Order,
    limit: u32,
) -> Vec<SnapshotId> {
    let store = Store::in_memory(|| false).unwrap();
    let mut unit = store.write().await.unwrap();
    let mut timelines: Vec<Timeline> = machines().map(Timeline::of).collect();
    for timeline in &timelines {
        unit.add_vm(&timeline.vm).unwrap();
    }
    for (n, snapshot) in snapshots.iter().enumerate() {
        let added = Change::SnapshotAdded(Box::new(snapshot.clone()));
        unit.record(&mut timelines[n % MACHINES], &[added]).unwrap();
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = Page::new(order, after, Some(limit));
        let listed = unit.snapshots(Reach::All, filter, &page).unwrap();
        let Some(last) = listed.last().map(|listed| &listed.snapshot) else { return found };
        after = Some(page.place(last.created_at.0, &last.name, last.id.0));
        found.extend(listed.iter().map(|listed| listed.snapshot.id));
    }
}

proptest! {
    #[test]
    fn pages_with_a_keyword_are_in_order_whatever_clocks_did(
        made in prop::collection::vec(
            (0..30_i64, any::<u128>(), "(old|older|golden) a"), 0..150,
        ),
        limit in 1..80_u32,
        order in prop::sample::select(vec![
            Order::Oldest, Order::Newest, Order::Name, Order::NameBackwards,
        ]),
        set_back in 0..3_usize,
        keywords in prop::sample::select(vec![&["olde"][..], &["olde", "er a"][..]]),
        created_after in prop::option::of(-30..60_i64),
        created_before in prop::option::of(-30..60_i64),
        state in prop::option::of(prop::sample::select(vec![
            SnapshotState::Ready, SnapshotState::Unavailable,
        ])),
    ) {
        let mut clock = 0;
        let machines: Vec<Vm> = machines().collect();
        let made = made.into_iter().enumerate().map(|(n, (step, id, name))| {
            // Often several in a moment, and now and then a clock that was set back.
            clock += if n % 20 < set_back { -step } else { step / 10 };
            let (vm, number) = (&machines[n % MACHINES], n / MACHINES);
            let state = if n % 3 == 0 { SnapshotState::Unavailable } else { SnapshotState::Ready };
            Snapshot { state, ..snapshot(id, vm, &format!("{name}{number}"), clock) }
        });
        let made: Vec<Snapshot> = made.collect();
        let mut wanted: Vec<&Snapshot> = made
            .iter()
            .filter(|snapshot| keywords.iter().all(|keyword| snapshot.name.contains(keyword)))
            .filter(|snapshot| state.is_none_or(|state| snapshot.state == state))
            .filter(|snapshot| created_after.is_none_or(|after| snapshot.created_at.0 >= after))
            .filter(|snapshot| created_before.is_none_or(|before| snapshot.created_at.0 < before))
            .collect();
        match order {
            Order::Oldest | Order::Newest => wanted.sort_by_key(|s| (s.created_at, s.id)),
            Order::Name | Order::NameBackwards => wanted.sort_by_key(|s| (&s.name, s.id)),
        }
        if matches!(order, Order::Newest | Order::NameBackwards) {
            wanted.reverse();
        }
        let wanted: Vec<SnapshotId> = wanted.into_iter().map(|snapshot| snapshot.id).collect();
        let filter = SnapshotFilter {
            keywords: keywords.iter().map(|&keyword| keyword.to_owned()).collect(),
            created_after: created_after.map(Moment),
            created_before: created_before.map(Moment),
            state,
            ..SnapshotFilter::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        prop_assert_eq!(runtime.block_on(paged(&made, &filter, order, limit)), wanted);
    }

    #[test]
    fn a_keyword_finds_what_has_it(
        names in prop::collection::btree_set("[aB\"% _\\\\1é-]{0,9}", 0..40),
        keyword in "[Ab\"% _\\\\1é-]{1,6}",
    ) {
        let names: Vec<String> = names.into_iter().collect();
        let folded = keyword.to_ascii_lowercase();
        let has = |name: &&String| name.to_ascii_lowercase().contains(&folded);
        let mut wanted: Vec<String> = names.iter().filter(has).cloned().collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut found = runtime.block_on(found(&names, &keyword));
        wanted.sort();
        found.sort();
        prop_assert_eq!(found, wanted);
    }
}
