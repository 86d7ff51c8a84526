//! A whole world in one thread, on a fake clock: the control plane with its database in memory, the
//! hand on a host that is in memory too, guests that write, and people who ask for everything at
//! once. Processes are killed at any step, disks fill up, messages come late and twice, clocks
//! jump. One number, the seed, is the whole story: what happens is drawn from it and from nothing
//! else, so that a world that went wrong goes wrong again, step by step.
//!
//! - `fate`: what is drawn: what people do, and what goes wrong when.
//! - `host`: the agent of a host in memory.
//! - `people`: what people ask for.
//! - `truth`: what has to hold after every event.
//! - `world`: one world from its beginning until all is quiet.

mod fate;
mod host;
mod people;
mod truth;
mod world;

pub use world::{Flaw, Story, run};
