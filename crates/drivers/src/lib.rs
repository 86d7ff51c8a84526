//! Hypervisors and volumes: what an agent acts with.
//!
//! Everything blocks: an agent gives each effect a thread of its own.

pub mod diary;
pub mod fake;
pub mod firmware;
pub mod guest_user;
pub mod host;
pub mod hypervisor;
pub mod premises;
pub mod qemu;
pub mod steps;
pub mod volume;

pub use diary::{Diary, Note};
pub use guest_user::GuestUser;
pub use host::Host;
pub use hypervisor::Hypervisor;
pub use premises::{OpenFiles, Premises};
pub use volume::Volume;
