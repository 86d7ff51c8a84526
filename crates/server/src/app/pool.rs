//! The pool: how full it is, how full it may come to be, and when that is told.

use super::{Answer, App, stored};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tintype_model::Refusal;
use tintype_model::access::{Action, Caller};
use tintype_model::refusal::Code;
use tintype_store::StoreError;
use tintype_wire::agent::HostFacts;
use tintype_wire::rest;

/// How often it is looked how full the pool is.
const EVERY: Duration = Duration::from_secs(5);

impl App {
    /// The pool of the host we run on.
    ///
    /// # Errors
    /// When the caller may not see it.
    pub async fn show_pool(&self, caller: &Caller) -> Answer<rest::Pool> {
        caller.may_ever(Action::ReadHosts)?;
        let facts = self.agent.host().await;
        let mut unit = self.store.read().await.map_err(stored)?;
        let growth_bytes = unit.growth_bytes().map_err(stored)?;
        let warn_at = unit.warn_at(self.host.id).map_err(stored)?;
        Ok(rest::Pool {
            id: self.host.pool,
            name: "default".to_owned(),
            host: self.host.id,
            used_percent: used(&facts),
            warning: warning(&facts, &warn_at, growth_bytes),
            growth_bytes,
            warn_at: warn_at.into_iter().collect(),
            path: facts.pool_path,
            free_bytes: facts.pool_free_bytes,
            total_bytes: facts.pool_total_bytes,
            reclaiming: unit.reclaims().map_err(stored)?,
        })
    }

    /// Sets when it is told how full a pool is.
    ///
    /// # Errors
    /// When the caller may not, there is no such pool, or that is no part of it.
    pub async fn edit_pool(
        &self,
        caller: &Caller,
        name_or_id: &str,
        edit: &rest::EditPool,
    ) -> Answer<rest::Pool> {
        caller.may_ever(Action::ManageHosts)?;
        if name_or_id != "default" && self.host.pool.to_string() != name_or_id {
            return Err(Refusal::new(Code::UnknownPool).detail(name_or_id));
        }
        let levels: BTreeSet<u8> = edit.warn_at.iter().copied().collect();
        if let Some(level) = levels.iter().find(|level| !(1..=99).contains(*level)) {
            return Err(Refusal::new(Code::InvalidRequest)
                .detail(format!("warn-at: {level}"))
                .hint("give percents from 1 to 99"));
        }
        let mut unit = self.store.write().await.map_err(stored)?;
        unit.set_warn_at(self.host.id, &levels).map_err(stored)?;
        self.tell(&mut unit, caller, "pool-edited", None, format!("warn-at {levels:?}"))?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        self.show_pool(caller).await
    }

    /// Tells whenever the pool passes a level, for ever.
    pub(super) async fn watch_pool(self: Arc<Self>) {
        let mut told = None;
        loop {
            match self.tell_level(told).await {
                Ok(level) => told = level,
                Err(error) => self.wait_for_database(&error).await,
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Looks how full the pool is, and records as an event when it is above another level than was
    /// told; answers that one.
    async fn tell_level(&self, told: Option<u8>) -> Result<Option<u8>, StoreError> {
        let levels = self.store.read().await?.warn_at(self.host.id)?;
        let facts = self.agent.host().await;
        let level = passed(&facts, &levels);
        if level == told {
            return Ok(told);
        }
        let kind = if level > told { "pool-filling" } else { "pool-relieved" };
        let detail = format!("default: {} % in use", used(&facts));
        tracing::warn!(kind, detail, "the pool passes a level");
        let mut unit = self.store.write().await?;
        unit.add_event(&self.event("tintype", kind, None, detail))?;
        unit.commit().await?;
        self.spread_news();
        Ok(level)
    }
}

/// How much of the pool is used, in percent; one that is nearly full is not called full.
fn used(facts: &HostFacts) -> u8 {
    let (free, total) = (facts.pool_free_bytes, facts.pool_total_bytes.max(1));
    let used = u128::from(total.saturating_sub(free)) * 100 / u128::from(total);
    u8::try_from(used).unwrap_or(100)
}

/// The highest level that is passed.
fn passed(facts: &HostFacts, levels: &BTreeSet<u8>) -> Option<u8> {
    levels.range(..=used(facts)).next_back().copied()
}

fn warning(facts: &HostFacts, levels: &BTreeSet<u8>, growth_bytes: u64) -> Option<String> {
    let used = used(facts);
    let full = passed(facts, levels).map(|level| format!("{used} % in use, above {level} %"));
    let grows = (growth_bytes > facts.pool_free_bytes)
        .then(|| "guests may come to write more than is free".to_owned());
    let said: Vec<String> = full.into_iter().chain(grows).collect();
    (!said.is_empty()).then(|| said.join("; "))
}

#[cfg(test)]
mod tests {
    use super::{passed, used, warning};
    use std::collections::BTreeSet;
    use tintype_model::capability::Capabilities;
    use tintype_model::config::{Accel, Platform};
    use tintype_wire::agent::HostFacts;

    fn facts(pool_free_bytes: u64) -> HostFacts {
        let platform = Platform { machine: "m".into(), cpu: "c".into(), accel: Accel::Tcg };
        HostFacts {
            capabilities: Capabilities::complete("told", platform),
            memory_free_bytes: 0,
            memory_total_bytes: 0,
            pool_free_bytes,
            pool_total_bytes: 1000,
            pool_path: "/pool".into(),
        }
    }

    #[test]
    fn levels_are_passed_one_by_one() {
        let levels = BTreeSet::from([80, 95]);
        let check = |free, percent, level| {
            assert_eq!((used(&facts(free)), passed(&facts(free), &levels)), (percent, level));
        };
        check(1000, 0, None);
        check(201, 79, None);
        check(200, 80, Some(80));
        check(50, 95, Some(95));
        check(1, 99, Some(95));
        check(0, 100, Some(95));
    }

    #[test]
    fn what_may_come_to_be_written_is_told_when_there_is_no_room_for_it() {
        let levels = BTreeSet::from([80]);
        assert_eq!(warning(&facts(500), &levels, 500), None);
        let grows = "guests may come to write more than is free";
        assert_eq!(warning(&facts(500), &levels, 501).as_deref(), Some(grows));
        assert_eq!(warning(&facts(150), &levels, 0).as_deref(), Some("85 % in use, above 80 %"));
    }
}
