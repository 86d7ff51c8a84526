//! The real binary with real guests, seen from the outside.

mod pool;
mod vms;
mod world;

pub use pool::Pool;
pub use vms::{MEMORY_MIB, TestVm, new_vm};
pub use world::World;
