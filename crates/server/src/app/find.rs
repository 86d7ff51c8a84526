//! Finding what a request is about, for who asks: what that one does not see is not there.

use super::{Answer, App, stored};
use tintype_model::access::{Action, Caller, Home};
use tintype_model::operation::Asker;
use tintype_model::refusal::Code;
use tintype_model::timeline::Timeline;
use tintype_model::{AccountId, DomainId, Refusal, SnapshotId, VmId};
use tintype_store::{Account, Domain, Unit, User};

/// How something is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// To get in line behind what holds the machine, instead of being refused (R9).
    pub queue: bool,
    /// To pass limits and quotas (R2).
    pub force: bool,
}

impl How {
    /// Who asks, as the rules of a machine see it.
    pub(super) fn asker(self, caller: &Caller) -> Asker {
        Asker { name: caller.name.clone(), role: caller.role, force: self.force }
    }
}

/// What a request is about: a machine by name or id, or that of a snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) enum About<'a> {
    Vm(&'a str),
    Snapshot(SnapshotId),
}

impl<'a> From<&'a str> for About<'a> {
    fn from(name_or_id: &'a str) -> Self {
        Self::Vm(name_or_id)
    }
}

impl From<SnapshotId> for About<'_> {
    fn from(id: SnapshotId) -> Self {
        Self::Snapshot(id)
    }
}

impl About<'_> {
    /// The timeline, if what this is about is still in it.
    fn in_it(self, timeline: Option<Timeline>) -> Answer<Timeline> {
        let is_in = |timeline: &Timeline| match self {
            Self::Vm(_) => true,
            Self::Snapshot(id) => timeline.snapshots.contains_key(&id),
        };
        timeline.filter(is_in).ok_or_else(|| self.unknown())
    }

    fn unknown(self) -> Refusal {
        match self {
            Self::Vm(name_or_id) => unknown_vm(name_or_id),
            Self::Snapshot(id) => unknown_snapshot(id),
        }
    }
}

impl App {
    /// Where what an account has belongs.
    pub(super) fn home(&self, unit: &mut Unit, account: AccountId) -> Answer<Home> {
        let account = unit.account(account).map_err(stored)?;
        let unknown = || Refusal::new(Code::UnknownAccount);
        Ok(account.ok_or_else(unknown)?.home())
    }

    /// A machine by name or id, if the caller may do this to it.
    pub(super) fn find_vm(
        &self,
        unit: &mut Unit,
        caller: &Caller,
        action: Action,
        name_or_id: &str,
    ) -> Answer<VmId> {
        let unknown = || unknown_vm(name_or_id);
        let (id, account) = match name_or_id.parse::<VmId>() {
            Ok(id) => (id, unit.account_of(id).map_err(stored)?.ok_or_else(unknown)?),
            Err(_) => {
                let named = unit.vms_named(caller.reach(), name_or_id).map_err(stored)?;
                let own = named.iter().find(|(_, account)| *account == caller.account);
                match (own, named.as_slice()) {
                    (Some(&own), _) => own,
                    (None, [only]) => *only,
                    (None, []) => return Err(unknown()),
                    (None, several) => return Err(ambiguous(name_or_id, several)),
                }
            }
        };
        let home = self.home(unit, account)?;
        caller.may(action, &home, unknown)?;
        Ok(id)
    }

    /// The machine of a snapshot, if the caller may do this to the snapshot.
    pub(super) fn find_vm_of(
        &self,
        unit: &mut Unit,
        caller: &Caller,
        action: Action,
        id: SnapshotId,
    ) -> Answer<VmId> {
        let unknown = || unknown_snapshot(id);
        let vm = unit.vm_of(id).map_err(stored)?.ok_or_else(unknown)?;
        let account = unit.account_of(vm).map_err(stored)?.ok_or_else(unknown)?;
        let home = self.home(unit, account)?;
        caller.may(action, &home, unknown)?;
        Ok(vm)
    }

    fn find_about(
        &self,
        unit: &mut Unit,
        caller: &Caller,
        action: Action,
        about: About<'_>,
    ) -> Answer<VmId> {
        match about {
            About::Vm(name_or_id) => self.find_vm(unit, caller, action, name_or_id),
            About::Snapshot(id) => self.find_vm_of(unit, caller, action, id),
        }
    }

    /// A machine's timeline, if the caller may do this to it.
    pub(super) async fn read_about(
        &self,
        caller: &Caller,
        action: Action,
        about: impl Into<About<'_>>,
    ) -> Answer<Timeline> {
        let about = about.into();
        let mut unit = self.store.read().await.map_err(stored)?;
        let vm = self.find_about(&mut unit, caller, action, about)?;
        about.in_it(unit.timeline(vm).map_err(stored)?)
    }

    /// Begins to write about a machine, if the caller may do this to it.
    pub(super) async fn write_about(
        &self,
        caller: &Caller,
        action: Action,
        about: impl Into<About<'_>>,
    ) -> Answer<(Unit, Timeline)> {
        let about = about.into();
        let mut reads = self.store.read().await.map_err(stored)?;
        let vm = self.find_about(&mut reads, caller, action, about)?;
        let (unit, timeline) = self.store.write_about(reads, vm).await.map_err(stored)?.unzip();
        let timeline = about.in_it(timeline)?;
        Ok((unit.ok_or_else(|| about.unknown())?, timeline))
    }

    /// An account by name or id, if the caller may do this with it; the caller's own without one.
    pub(super) fn find_account(
        &self,
        unit: &mut Unit,
        caller: &Caller,
        action: Action,
        name_or_id: Option<&str>,
    ) -> Answer<Account> {
        let found = match name_or_id.map(|text| (text, text.parse())) {
            None => unit.account(caller.account),
            Some((_, Ok(id))) => unit.account(id),
            Some((name, Err(_))) => unit.account_named(name),
        };
        let unknown = || Refusal::new(Code::UnknownAccount).detail(name_or_id.unwrap_or_default());
        let account = found.map_err(stored)?.ok_or_else(unknown)?;
        caller.may(action, &account.home(), unknown)?;
        Ok(account)
    }

    /// A domain by name or id, if the caller may do this with it; the caller's own without one.
    pub(super) fn find_domain(
        &self,
        unit: &mut Unit,
        caller: &Caller,
        action: Action,
        name_or_id: Option<&str>,
    ) -> Answer<Domain> {
        let unknown = || Refusal::new(Code::UnknownDomain).detail(name_or_id.unwrap_or_default());
        let sees = |domain: &Domain| {
            let is_own = caller.lineage.last() == Some(&domain.id);
            is_own || caller.reaches(&Home { account: None, lineage: domain.lineage.clone() })
        };
        let mut found: Vec<Domain> = match name_or_id.map(|text| (text, text.parse())) {
            None => match caller.lineage.last() {
                Some(&own) => unit.domain(own).map_err(stored)?.into_iter().collect(),
                None => Vec::new(),
            },
            Some((_, Ok(id))) => unit.domain(id).map_err(stored)?.into_iter().collect(),
            Some((name, Err(_))) => unit.domains_named(name).map_err(stored)?,
        };
        found.retain(sees);
        if found.len() > 1 {
            return Err(Refusal::new(Code::NameAmbiguous)
                .detail(format!("{} domains have this name", found.len()))
                .hint("give the id")
                .blocked_by(found.iter().map(|domain| domain.id.0)));
        }
        let domain = found.pop().ok_or_else(unknown)?;
        caller.may_ever(action)?;
        Ok(domain)
    }

    /// The account and domain that a list is about.
    pub(super) fn account_and_domain(
        &self,
        unit: &mut Unit,
        caller: &Caller,
        account: Option<&str>,
        domain: Option<&str>,
    ) -> Answer<(Option<AccountId>, Option<DomainId>)> {
        let account = match account {
            None => None,
            some => Some(self.find_account(unit, caller, Action::ReadVm, some)?.id),
        };
        let domain = match domain {
            None => None,
            some => Some(self.find_domain(unit, caller, Action::ReadVm, some)?.id),
        };
        Ok((account, domain))
    }

    /// A user by name or id, if the caller may do this with it, or is it.
    pub(super) fn find_user(
        &self,
        unit: &mut Unit,
        caller: &Caller,
        action: Action,
        name_or_id: &str,
    ) -> Answer<User> {
        let found = match name_or_id.parse() {
            Ok(id) => unit.user(id),
            Err(_) => unit.user_named(name_or_id),
        };
        let unknown = || Refusal::new(Code::UnknownUser).detail(name_or_id);
        let user = found.map_err(stored)?.ok_or_else(unknown)?;
        caller.may(action, &user.home(), unknown)?;
        Ok(user)
    }
}

pub(super) fn unknown_snapshot(id: SnapshotId) -> Refusal {
    Refusal::new(Code::UnknownSnapshot).detail(id.to_string())
}

pub(super) fn unknown_vm(name: &str) -> Refusal {
    Refusal::new(Code::UnknownVm).detail(name).hint("tintype vm list shows those there are")
}

fn ambiguous(name: &str, several: &[(VmId, AccountId)]) -> Refusal {
    Refusal::new(Code::NameAmbiguous)
        .detail(format!("{} accounts have a virtual machine named {name}", several.len()))
        .hint("give the id")
        .blocked_by(several.iter().map(|(id, _)| id.0))
}
