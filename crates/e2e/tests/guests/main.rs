//! The real binary, real QEMU and real guests, from outside: one program, so that there are two
//! guests at a time until the last test.

mod console;
mod direct_io;
mod export;
mod foreign;
mod full_pool;
mod hostile;
mod kills;
mod ordinary;
mod people;
mod quiesce;
mod refusals;
mod revert_failures;
mod scenarios;
mod sharing;
mod snapshots;
mod survival;
mod terminal;
