//! A keyword finds what has it in its name, and nothing else, whatever letters it is of (C31, E20).

use proptest::prelude::*;
use std::collections::BTreeSet;
use tintype_model::access::Reach;
use tintype_model::config::{Accel, Config, Platform};
use tintype_model::settings::Settings;
use tintype_model::vm::{Vm, VmState};
use tintype_model::{AccountId, Moment, VmId};
use tintype_store::{Order, Page, Store, VmFilter};
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

proptest! {
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
