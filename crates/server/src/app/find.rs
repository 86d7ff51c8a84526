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
            Ok(id) => {
                let vm = unit.vm(id).map_err(stored)?.ok_or_else(unknown)?;
                (vm.id, vm.account)
            }
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

    /// A machine's timeline, if the caller may do this to it.
    pub(super) fn load(
        &self,
        unit: &mut Unit,
        caller: &Caller,
        action: Action,
        name_or_id: &str,
    ) -> Answer<Timeline> {
        let unknown = || unknown_vm(name_or_id);
        let id = match name_or_id.parse() {
            Ok(id) => id,
            Err(_) => self.find_vm(unit, caller, action, name_or_id)?,
        };
        let timeline = unit.timeline(id).map_err(stored)?.ok_or_else(unknown)?;
        let home = self.home(unit, timeline.vm.account)?;
        caller.may(action, &home, unknown)?;
        Ok(timeline)
    }

    /// The timeline of a snapshot's machine, if the caller may do this to the snapshot.
    pub(super) fn load_of(
        &self,
        unit: &mut Unit,
        caller: &Caller,
        action: Action,
        id: SnapshotId,
    ) -> Answer<Timeline> {
        let unknown = || Refusal::new(Code::UnknownSnapshot).detail(id.to_string());
        let vm = unit.vm_of(id).map_err(stored)?.ok_or_else(unknown)?;
        let timeline = unit.timeline(vm).map_err(stored)?.ok_or_else(unknown)?;
        let home = self.home(unit, timeline.vm.account)?;
        caller.may(action, &home, unknown)?;
        Ok(timeline)
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

pub(super) fn unknown_vm(name: &str) -> Refusal {
    Refusal::new(Code::UnknownVm).detail(name).hint("tintype vm list shows those there are")
}

fn ambiguous(name: &str, several: &[(VmId, AccountId)]) -> Refusal {
    Refusal::new(Code::NameAmbiguous)
        .detail(format!("{} accounts have a virtual machine named {name}", several.len()))
        .hint("give the id")
        .blocked_by(several.iter().map(|(id, _)| id.0))
}
