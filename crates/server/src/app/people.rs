//! Domains, accounts and users (C1, R13).

use super::token::hash_password;
use super::{Answer, App, stored};
use crate::view;
use tintype_model::access::{Action, Caller, Role};
use tintype_model::quota::Quota;
use tintype_model::refusal::Code;
use tintype_model::{AccountId, DomainId, Refusal, UserId, name};
use tintype_store::{Account, Domain, FIRST_USER, Page, User};
use tintype_wire::rest;
use uuid::Uuid;

impl App {
    /// A page of the domains that the caller sees.
    ///
    /// # Errors
    /// When the database fails; so for all lists.
    pub async fn domains(&self, caller: &Caller, page: &Page) -> Answer<rest::List<rest::Domain>> {
        caller.may_ever(Action::ReadPeople)?;
        let mut unit = self.store.read().await.map_err(stored)?;
        let own = caller.lineage.last().copied().unwrap_or(DomainId(Uuid::nil()));
        let found = unit.domains(caller.reach(), own, page).map_err(stored)?;
        let last = found.last().map(|d| (d.created_at, d.name.as_str(), d.id.0));
        let next = view::next(page, found.len(), last);
        Ok(rest::List { items: found.iter().map(view::domain).collect(), next })
    }

    /// A domain, by name or id.
    ///
    /// # Errors
    /// When there is none.
    pub async fn domain(&self, caller: &Caller, name_or_id: &str) -> Answer<rest::Domain> {
        let mut unit = self.store.read().await.map_err(stored)?;
        let action = Action::ReadPeople;
        let domain = self.find_domain(&mut unit, caller, action, Some(name_or_id))?;
        Ok(view::domain(&domain))
    }

    /// Creates a domain.
    ///
    /// # Errors
    /// When the name is taken, or the one above is unknown.
    pub async fn create_domain(
        &self,
        caller: &Caller,
        new: rest::NewDomain,
    ) -> Answer<rest::Domain> {
        caller.may_ever(Action::ManagePeople)?;
        name::check_vm_name(&new.name)?;
        let mut unit = self.store.write().await.map_err(stored)?;
        let action = Action::ManagePeople;
        let parent = self.find_domain(&mut unit, caller, action, new.parent.as_deref())?;
        let same = unit.domains_named(&new.name).map_err(stored)?;
        if same.iter().any(|domain| domain.parent == Some(parent.id)) {
            return Err(taken("domain", &new.name));
        }
        let id = DomainId(self.fresh());
        let lineage = parent.lineage.iter().copied().chain([id]).collect();
        let domain =
            Domain { id, name: new.name, parent: Some(parent.id), lineage, created_at: self.now() };
        unit.add_domain(&domain).map_err(stored)?;
        self.tell(&mut unit, caller, "domain-created", None, domain.name.clone())?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        Ok(view::domain(&domain))
    }

    /// Deletes a domain that is empty.
    ///
    /// # Errors
    /// When something is in it.
    pub async fn delete_domain(&self, caller: &Caller, name_or_id: &str) -> Answer<()> {
        let mut unit = self.store.write().await.map_err(stored)?;
        let action = Action::ManagePeople;
        let domain = self.find_domain(&mut unit, caller, action, Some(name_or_id))?;
        let root = domain.parent.is_none();
        if root || !unit.remove_domain(domain.id).map_err(stored)? {
            return Err(Refusal::new(Code::NotEmpty)
                .detail(format!("domain {}", domain.name))
                .hint("delete its accounts and the domains beneath first; the root stays"));
        }
        self.tell(&mut unit, caller, "domain-deleted", None, domain.name)?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        Ok(())
    }

    /// A page of the accounts that the caller sees.
    ///
    /// # Errors
    /// As for all lists.
    pub async fn accounts(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Answer<rest::List<rest::Account>> {
        caller.may_ever(Action::ReadPeople)?;
        let mut unit = self.store.read().await.map_err(stored)?;
        let found = unit.accounts(caller.reach(), page).map_err(stored)?;
        let last = found.last().map(|a| (a.created_at, a.name.as_str(), a.id.0));
        let next = view::next(page, found.len(), last);
        Ok(rest::List { items: found.iter().map(view::account).collect(), next })
    }

    /// An account with its quota and usage, by name or id.
    ///
    /// # Errors
    /// When there is none.
    pub async fn account(&self, caller: &Caller, name_or_id: &str) -> Answer<rest::Account> {
        let mut unit = self.store.read().await.map_err(stored)?;
        let action = Action::ReadPeople;
        let account = self.find_account(&mut unit, caller, action, Some(name_or_id))?;
        Ok(view::account(&account))
    }

    /// Creates an account.
    ///
    /// # Errors
    /// When the name is taken.
    pub async fn create_account(
        &self,
        caller: &Caller,
        new: rest::NewAccount,
    ) -> Answer<rest::Account> {
        caller.may_ever(Action::ManagePeople)?;
        name::check_vm_name(&new.name)?;
        let mut unit = self.store.write().await.map_err(stored)?;
        let action = Action::ManagePeople;
        let domain = self.find_domain(&mut unit, caller, action, new.domain.as_deref())?;
        if unit.account_named(&new.name).map_err(stored)?.is_some() {
            return Err(taken("account", &new.name));
        }
        let mut quota = Quota::default();
        view::set(&mut quota.snapshots, new.snapshot_quota.map(view::to_limit));
        view::set(&mut quota.bytes, new.bytes_quota.map(view::to_limit));
        let account = Account {
            id: AccountId(self.fresh()),
            name: new.name,
            domain: domain.id,
            lineage: domain.lineage,
            quota,
            usage: tintype_model::quota::Usage::default(),
            created_at: self.now(),
        };
        unit.add_account(&account).map_err(stored)?;
        let (id, detail) = (Some(account.id), account.name.clone());
        self.tell(&mut unit, caller, "account-created", id, detail)?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        Ok(view::account(&account))
    }

    /// Gives an account another quota.
    ///
    /// # Errors
    /// When there is none, or the caller may not.
    pub async fn edit_account(
        &self,
        caller: &Caller,
        name_or_id: &str,
        edit: rest::EditAccount,
    ) -> Answer<rest::Account> {
        let mut unit = self.store.write().await.map_err(stored)?;
        let action = Action::ManagePeople;
        let found = self.find_account(&mut unit, caller, action, Some(name_or_id));
        let mut account = found?;
        view::set(&mut account.quota.snapshots, edit.snapshot_quota.map(view::to_limit));
        view::set(&mut account.quota.bytes, edit.bytes_quota.map(view::to_limit));
        unit.set_quota(account.id, &account.quota).map_err(stored)?;
        let detail = format!("{}: {:?}", account.name, account.quota);
        self.tell(&mut unit, caller, "account-edited", Some(account.id), detail)?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        Ok(view::account(&account))
    }

    /// Deletes an account that has no machines, with its users.
    ///
    /// # Errors
    /// When it has machines, or is the caller's own.
    pub async fn delete_account(&self, caller: &Caller, name_or_id: &str) -> Answer<()> {
        let mut unit = self.store.write().await.map_err(stored)?;
        let action = Action::ManagePeople;
        let account = self.find_account(&mut unit, caller, action, Some(name_or_id))?;
        let first = unit.user(FIRST_USER).map_err(stored)?;
        if account.id == caller.account || first.is_some_and(|user| user.account == account.id) {
            return Err(Refusal::new(Code::StillUsed)
                .detail("it is your own account, or the first administrator's"));
        }
        if !unit.remove_account(account.id).map_err(stored)? {
            return Err(Refusal::new(Code::NotEmpty)
                .detail(format!("account {} has virtual machines", account.name))
                .hint("delete them first"));
        }
        self.tell(&mut unit, caller, "account-deleted", Some(account.id), account.name)?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        Ok(())
    }

    /// A page of the users that the caller sees.
    ///
    /// # Errors
    /// As for all lists.
    pub async fn users(&self, caller: &Caller, page: &Page) -> Answer<rest::List<rest::User>> {
        caller.may_ever(Action::ReadPeople)?;
        let mut unit = self.store.read().await.map_err(stored)?;
        let found = unit.users(caller.reach(), page).map_err(stored)?;
        let last = found.last().map(|u| (u.created_at, u.name.as_str(), u.id.0));
        let next = view::next(page, found.len(), last);
        Ok(rest::List { items: found.iter().map(view::user).collect(), next })
    }

    /// A user, by name or id.
    ///
    /// # Errors
    /// When there is none.
    pub async fn user(&self, caller: &Caller, name_or_id: &str) -> Answer<rest::User> {
        let mut unit = self.store.read().await.map_err(stored)?;
        let user = self.find_user(&mut unit, caller, Action::ReadPeople, name_or_id)?;
        Ok(view::user(&user))
    }

    /// Creates a user.
    ///
    /// # Errors
    /// When the name is taken, or the role is more than the caller's.
    pub async fn create_user(&self, caller: &Caller, new: rest::NewUser) -> Answer<rest::User> {
        caller.may_ever(Action::ManagePeople)?;
        name::check_vm_name(&new.name)?;
        let role = new.role.as_deref().map_or(Ok(Role::User), role)?;
        let password = match new.password {
            Some(password) => Some(hash_password(password).await?),
            None => None,
        };
        let mut unit = self.store.write().await.map_err(stored)?;
        let action = Action::ManagePeople;
        let account = self.find_account(&mut unit, caller, action, new.account.as_deref())?;
        if unit.user_named(&new.name).map_err(stored)?.is_some() {
            return Err(taken("user", &new.name));
        }
        let user = User {
            id: UserId(self.fresh()),
            account: account.id,
            lineage: account.lineage,
            name: new.name,
            role,
            password,
            created_at: self.now(),
        };
        unit.add_user(&user).map_err(stored)?;
        let detail = format!("{}, {}", user.name, role.as_str());
        self.tell(&mut unit, caller, "user-created", Some(account.id), detail)?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        Ok(view::user(&user))
    }

    /// Changes a user's role or password. The own password anybody may change; it ends every other
    /// token of the user.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn edit_user(
        &self,
        caller: &Caller,
        name_or_id: &str,
        edit: rest::EditUser,
    ) -> Answer<rest::User> {
        let password = match edit.password {
            Some(password) => {
                caller.may_ever(Action::ManageTokens)?;
                Some(hash_password(password).await?)
            }
            None => None,
        };
        let mut unit = self.store.write().await.map_err(stored)?;
        let mut user = self.find_user(&mut unit, caller, Action::ReadPeople, name_or_id)?;
        if user.id != caller.user || edit.role.is_some() {
            caller.may_ever(Action::ManagePeople)?;
        }
        if let Some(text) = edit.role {
            let role = role(&text)?;
            if user.id == FIRST_USER && role != Role::Administrator {
                return Err(Refusal::new(Code::StillUsed)
                    .detail("the first administrator stays one")
                    .hint("somebody has to be able to let others in"));
            }
            user.role = role;
        }
        if password.is_some() {
            user.password = password;
            unit.remove_tokens_of(user.id, caller.token).map_err(stored)?;
        }
        unit.change_user(&user).map_err(stored)?;
        let (account, name) = (Some(user.account), user.name.clone());
        self.tell(&mut unit, caller, "user-edited", account, name)?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        Ok(view::user(&user))
    }

    /// Deletes a user with its tokens.
    ///
    /// # Errors
    /// When it is the caller, or the first administrator.
    pub async fn delete_user(&self, caller: &Caller, name_or_id: &str) -> Answer<()> {
        let mut unit = self.store.write().await.map_err(stored)?;
        let user = self.find_user(&mut unit, caller, Action::ManagePeople, name_or_id)?;
        if user.id == caller.user || user.id == FIRST_USER {
            return Err(Refusal::new(Code::StillUsed)
                .detail(format!("{} is you, or the first administrator", user.name)));
        }
        unit.remove_user(user.id).map_err(stored)?;
        self.tell(&mut unit, caller, "user-deleted", Some(user.account), user.name)?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        Ok(())
    }
}

fn role(text: &str) -> Answer<Role> {
    let found = Role::ALL.into_iter().find(|role| role.as_str() == text);
    found.ok_or_else(|| {
        Refusal::new(Code::InvalidRequest)
            .detail(format!("role {text:?}"))
            .hint("viewer, user, operator or administrator")
    })
}

fn taken(what: &str, name: &str) -> Refusal {
    Refusal::new(Code::NameTaken)
        .detail(format!("there is a {what} named {name}"))
        .hint("choose another name")
}
