//! What is true of a virtual machine's timeline, and what may happen to it.
//!
//! Everything here is a pure function of its arguments: no I/O, no clock, no random source, no
//! iteration order that depends on a hash. Edges load a [`timeline::Timeline`], ask
//! [`operation::step`] and record the [`change::Change`]s and [`effect::Effect`]s it answers.

pub mod access;
pub mod capability;
pub mod change;
pub mod config;
pub mod effect;
pub mod finding;
pub mod id;
pub mod layer;
pub mod manifest;
pub mod moment;
pub mod name;
pub mod operation;
pub mod outcome;
pub mod pause;
pub mod quota;
pub mod reclaim;
pub mod refusal;
pub mod settings;
pub mod snapshot;
pub mod timeline;
pub mod tree;
pub mod vm;

pub use id::{
    AccountId, DiskId, DomainId, EffectId, LayerId, OperationId, ProfileId, SnapshotId, TokenId,
    UserId, VmId,
};
pub use moment::Moment;
pub use refusal::{Code, Refusal};
