//! Profiles: settings for new machines (C23). Changing one touches nothing that exists (C25).

use super::{Answer, App, stored};
use crate::view;
use tintype_model::access::{Action, Caller};
use tintype_model::refusal::Code;
use tintype_model::settings::Settings;
use tintype_model::{ProfileId, Refusal, name};
use tintype_store::{DEFAULT_PROFILE, Page, Profile, Unit};
use tintype_wire::rest;

impl App {
    /// A page of profiles.
    ///
    /// # Errors
    /// When the caller may not see them; so for all of these.
    pub async fn profiles(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Answer<rest::List<rest::Profile>> {
        caller.may_ever(Action::ReadProfiles)?;
        let mut unit = self.store.read().await.map_err(stored)?;
        let found = unit.profiles(page).map_err(stored)?;
        let last = found.last().map(|p| (p.created_at, p.name.as_str(), p.id.0));
        let next = view::next(page, found.len(), last);
        Ok(rest::List { items: found.iter().map(view::profile).collect(), next })
    }

    /// A profile, by name or id.
    ///
    /// # Errors
    /// When there is none.
    pub async fn profile(&self, caller: &Caller, name_or_id: &str) -> Answer<rest::Profile> {
        caller.may_ever(Action::ReadProfiles)?;
        let mut unit = self.store.read().await.map_err(stored)?;
        Ok(view::profile(&find(&mut unit, name_or_id)?))
    }

    /// Creates a profile.
    ///
    /// # Errors
    /// When the name is taken.
    pub async fn create_profile(
        &self,
        caller: &Caller,
        new: rest::NewProfile,
    ) -> Answer<rest::Profile> {
        caller.may_ever(Action::ManageProfiles)?;
        name::check_vm_name(&new.name)?;
        let mut settings = Settings::default();
        view::set(&mut settings.snapshots_allowed, new.snapshots_allowed);
        view::set(&mut settings.memory_allowed, new.memory_allowed);
        view::set(&mut settings.protect_snapshots, new.protect_snapshots);
        view::set(&mut settings.snapshot_limit, new.snapshot_limit.map(view::to_limit));
        view::set(&mut settings.pause_bound, new.pause_bound_ms.map(view::to_limit));
        let id = ProfileId(self.fresh());
        let profile = Profile { id, name: new.name, settings, created_at: self.now() };
        let mut unit = self.store.write().await.map_err(stored)?;
        refuse_taken(&mut unit, &profile)?;
        unit.add_profile(&profile).map_err(stored)?;
        self.tell(&mut unit, caller, "profile-created", None, profile.name.clone())?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        Ok(view::profile(&profile))
    }

    /// Changes a profile.
    ///
    /// # Errors
    /// When there is none, or the name is taken.
    pub async fn edit_profile(
        &self,
        caller: &Caller,
        name_or_id: &str,
        edit: rest::EditProfile,
    ) -> Answer<rest::Profile> {
        caller.may_ever(Action::ManageProfiles)?;
        let mut unit = self.store.write().await.map_err(stored)?;
        let mut profile = find(&mut unit, name_or_id)?;
        let settings = &mut profile.settings;
        view::set(&mut settings.snapshots_allowed, edit.snapshots_allowed);
        view::set(&mut settings.memory_allowed, edit.memory_allowed);
        view::set(&mut settings.protect_snapshots, edit.protect_snapshots);
        view::set(&mut settings.snapshot_limit, edit.snapshot_limit.map(view::to_limit));
        view::set(&mut settings.pause_bound, edit.pause_bound_ms.map(view::to_limit));
        if let Some(name) = edit.name {
            name::check_vm_name(&name)?;
            profile.name = name;
            refuse_taken(&mut unit, &profile)?;
        }
        unit.change_profile(&profile).map_err(stored)?;
        self.tell(&mut unit, caller, "profile-edited", None, profile.name.clone())?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        Ok(view::profile(&profile))
    }

    /// Deletes a profile.
    ///
    /// # Errors
    /// When there is none, or it is the one of machines that name none.
    pub async fn delete_profile(&self, caller: &Caller, name_or_id: &str) -> Answer<()> {
        caller.may_ever(Action::ManageProfiles)?;
        let mut unit = self.store.write().await.map_err(stored)?;
        let profile = find(&mut unit, name_or_id)?;
        if profile.id == DEFAULT_PROFILE {
            return Err(Refusal::new(Code::StillUsed)
                .detail(format!("{} is for machines that name no profile", profile.name))
                .hint("edit it instead"));
        }
        unit.remove_profile(profile.id).map_err(stored)?;
        self.tell(&mut unit, caller, "profile-deleted", None, profile.name)?;
        unit.commit().await.map_err(stored)?;
        self.spread_news();
        Ok(())
    }
}

fn find(unit: &mut Unit, name_or_id: &str) -> Answer<Profile> {
    let found = unit.profile(name_or_id).map_err(stored)?;
    found.ok_or_else(|| Refusal::new(Code::UnknownProfile).detail(name_or_id))
}

fn refuse_taken(unit: &mut Unit, profile: &Profile) -> Answer<()> {
    match unit.profile(&profile.name).map_err(stored)? {
        Some(other) if other.id != profile.id => Err(Refusal::new(Code::NameTaken)
            .detail(format!("there is a profile named {}", profile.name))
            .blocked_by([other.id.0])),
        _ => Ok(()),
    }
}
