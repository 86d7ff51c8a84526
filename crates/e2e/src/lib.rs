//! The real binary with real guests, seen from the outside.

mod debian;
mod figures;
mod libvirt;
mod plot;
mod pool;
mod small_pool;
mod vms;
mod world;

pub use debian::Debian;
pub use figures::rank;
pub use libvirt::Libvirt;
pub use plot::dots;
pub use pool::Pool;
pub use small_pool::{Filesystem, SmallPool, as_root};
pub use vms::{MEMORY_MIB, TestVm, new_vm};
pub use world::World;
