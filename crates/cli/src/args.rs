//! The command line.

use crate::commands::database::DatabaseVerb;
use crate::commands::disk::DiskVerb;
use crate::commands::event::EventVerb;
use crate::commands::host::{HostVerb, HypervisorVerb, PoolVerb};
use crate::commands::operation::OperationVerb;
use crate::commands::people::{AccountVerb, DomainVerb, UserVerb};
use crate::commands::profile::ProfileVerb;
use crate::commands::serve::Serve;
use crate::commands::snapshot::SnapshotVerb;
use crate::commands::token::TokenVerb;
use crate::commands::vm::VmVerb;
use crate::context::Output;
use clap::{Parser, Subcommand};
use clap_complete::Shell;
use std::path::PathBuf;

/// Every virtual machine has a timeline: snapshots with memory in milliseconds, a tree to revert,
/// branch and prune.
#[derive(Debug, Parser)]
#[command(name = "tintype", version, about)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) verb: Verb,
    /// How to print answers; json is what the REST interface says
    #[arg(long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Output,
    /// Wait until what was asked for is done (the default)
    #[arg(long, global = true, conflicts_with = "no_wait")]
    pub(crate) wait: bool,
    /// Do not wait: print the operation that was accepted
    #[arg(long, global = true)]
    pub(crate) no_wait: bool,
    /// Do not ask before something is lost
    #[arg(long, global = true)]
    pub(crate) yes: bool,
    /// Get in line behind what holds the virtual machine, instead of being refused
    #[arg(long, global = true)]
    pub(crate) queue: bool,
    /// Pass limits and quotas (an administrator may, and it is recorded); stop: cut the power
    #[arg(long, global = true)]
    pub(crate) force: bool,
    /// The server's address, such as http://127.0.0.1:7420
    #[arg(long, global = true, env = "TINTYPE_URL")]
    pub(crate) url: Option<String>,
    /// The token to show it
    #[arg(long, global = true, env = "TINTYPE_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// A file with the certificates of whoever has signed the server's
    #[arg(long, global = true, env = "TINTYPE_CA")]
    pub(crate) ca: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the control plane and, with it, this host's agent
    Serve(Serve),
    /// Let stopped guests run again when tintype dies (started by serve)
    #[command(hide = true)]
    Watchdog,
    /// Serve memory to a virtual machine that runs already (started by serve)
    #[command(hide = true)]
    PageServer {
        /// What to serve to whom
        job: String,
    },
    /// Virtual machines
    #[command(subcommand)]
    Vm(VmVerb),
    /// Disks of a virtual machine
    #[command(subcommand)]
    Disk(DiskVerb),
    /// Snapshots
    #[command(subcommand)]
    Snapshot(SnapshotVerb),
    /// Operations: what was asked for, and how far it is
    #[command(subcommand)]
    Operation(OperationVerb),
    /// Hosts
    #[command(subcommand)]
    Host(HostVerb),
    /// Kinds of hypervisors
    #[command(subcommand)]
    Hypervisor(HypervisorVerb),
    /// Storage pools
    #[command(subcommand)]
    Pool(PoolVerb),
    /// Settings for new virtual machines
    #[command(subcommand)]
    Profile(ProfileVerb),
    /// Domains: accounts, and domains beneath
    #[command(subcommand)]
    Domain(DomainVerb),
    /// Accounts: what has virtual machines, with quota and usage
    #[command(subcommand)]
    Account(AccountVerb),
    /// Users: people and programs
    #[command(subcommand)]
    User(UserVerb),
    /// Tokens: what a user shows to be let in
    #[command(subcommand)]
    Token(TokenVerb),
    /// Sign in by password, for a day
    #[command(visible_alias = "sign-in")]
    Login {
        /// Your user's name
        user: String,
    },
    /// The database: saved and restored
    #[command(subcommand)]
    Database(DatabaseVerb),
    /// What happened, and who did it
    #[command(subcommand)]
    Event(EventVerb),
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: Shell,
    },
}
