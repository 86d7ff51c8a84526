//! The words on the wire: what REST and agents say, the problem envelope, the one client.

pub mod agent;
pub mod client;
pub mod rest;
