//! `tintype profile`

use super::escape;
use super::list::all;
use crate::context::Context;
use crate::failure::Failure;
use crate::limit::{self, Number};
use crate::output::{card, line, print, table};
use clap::{Args, Subcommand};
use tintype_wire::rest::{EditProfile, Limit, List, NewProfile, Profile};

/// What may be done with the snapshots of a virtual machine.
#[derive(Debug, Args, Clone, Copy)]
pub(crate) struct SettingArgs {
    /// Whether users may work with snapshots
    #[arg(long)]
    pub(crate) snapshots_allowed: Option<bool>,
    /// Whether users may save memory
    #[arg(long)]
    pub(crate) memory_allowed: Option<bool>,
    /// How many snapshots: a number, or unlimited
    #[arg(long, value_parser = limit::number)]
    pub(crate) snapshot_limit: Option<Number>,
    /// Whether it cannot be deleted while it has snapshots
    #[arg(long)]
    pub(crate) protect_snapshots: Option<bool>,
    /// How many milliseconds a guest may stand still so that its memory is of the moment that was
    /// asked for, or unlimited; beyond that it is of a later moment, with a shorter pause
    #[arg(long, value_parser = limit::number)]
    pub(crate) pause_bound: Option<Number>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProfileVerb {
    /// Create a profile for new virtual machines
    Create {
        /// Its name
        name: String,
        #[command(flatten)]
        settings: SettingArgs,
    },
    /// List profiles
    #[command(visible_alias = "ls")]
    List,
    /// Show a profile
    Show {
        /// Name or id
        profile: String,
    },
    /// Change a profile; virtual machines that exist keep what they have
    Set {
        /// Name or id
        profile: String,
        #[command(flatten)]
        settings: SettingArgs,
    },
    /// Delete a profile
    #[command(alias = "rm")]
    Delete {
        /// Name or id
        profile: String,
    },
}

pub(crate) async fn run(context: &Context, verb: ProfileVerb) -> Result<(), Failure> {
    let client = &context.client;
    match verb {
        ProfileVerb::Create { name, settings } => {
            let new = NewProfile {
                name,
                snapshots_allowed: settings.snapshots_allowed,
                memory_allowed: settings.memory_allowed,
                snapshot_limit: settings.snapshot_limit.map(Limit::from),
                protect_snapshots: settings.protect_snapshots,
                pause_bound_ms: settings.pause_bound.map(Limit::from),
            };
            let made: Profile = client.post("/v1/profiles", &new).await?;
            print(context, &made, show);
        }
        ProfileVerb::List => {
            let profiles: List<Profile> = all(context, "/v1/profiles?limit=500").await?;
            print(context, &profiles, |profiles| {
                let row = |profile: &Profile| {
                    vec![
                        profile.name.clone(),
                        yes(profile.snapshots_allowed),
                        yes(profile.memory_allowed),
                        limit::show(profile.snapshot_limit),
                        yes(profile.protect_snapshots),
                    ]
                };
                let rows: Vec<Vec<String>> = profiles.items.iter().map(row).collect();
                table(&["NAME", "USERS ALLOWED", "MEMORY ALLOWED", "LIMIT", "PROTECT"], &rows)
            });
        }
        ProfileVerb::Show { profile } => {
            let path = format!("/v1/profiles/{}", escape(&profile));
            let profile: Profile = client.get(&path).await?;
            print(context, &profile, show);
        }
        ProfileVerb::Set { profile, settings } => {
            let edit = EditProfile {
                name: None,
                snapshots_allowed: settings.snapshots_allowed,
                memory_allowed: settings.memory_allowed,
                snapshot_limit: settings.snapshot_limit.map(Limit::from),
                protect_snapshots: settings.protect_snapshots,
                pause_bound_ms: settings.pause_bound.map(Limit::from),
            };
            let path = format!("/v1/profiles/{}", escape(&profile));
            let profile: Profile = client.patch(&path, &edit).await?;
            print(context, &profile, show);
        }
        ProfileVerb::Delete { profile } => {
            client.remove(&format!("/v1/profiles/{}", escape(&profile))).await?;
            line(&format!("deleted profile {profile}"));
        }
    }
    Ok(())
}

pub(crate) fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

fn show(profile: &Profile) -> String {
    card(&[
        ("name", profile.name.clone()),
        ("id", profile.id.to_string()),
        ("users allowed", yes(profile.snapshots_allowed)),
        ("memory allowed", yes(profile.memory_allowed)),
        ("snapshot limit", limit::show(profile.snapshot_limit)),
        ("protect snapshots", yes(profile.protect_snapshots)),
        ("pause bound", limit::show_ms(profile.pause_bound_ms)),
        ("created", profile.created_at.clone()),
    ])
}
