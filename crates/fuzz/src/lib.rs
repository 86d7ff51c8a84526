//! Everything that parses bytes from outside, each fed by a function that panics when what comes of
//! them is not what has to come of any bytes. `cargo xtask fuzz` runs them under libFuzzer; the
//! corpus that it has left is fed to them by every `cargo test`.
//!
//! - `disk`: the beginning of a disk image.
//! - `guest`: what QEMU and the guest agent say.
//! - `manifest`: what lies beside the layers of a machine.
//! - `memory`: the file that memory is saved in, and what QEMU says while it is served.
//! - `names`: names, descriptions, moments and places in lists.
//! - `rest`: requests.

mod disk;
mod guest;
mod manifest;
mod memory;
mod names;
mod rest;

pub use disk::disk_header;
pub use guest::{guest_agent, qmp};
pub use manifest::manifest;
pub use memory::{memory_file, return_path};
pub use names::names;
pub use rest::rest;

/// Takes bytes, and panics when what comes of them is wrong.
pub type Feed = fn(&[u8]);

/// What is fed, by the name of its corpus.
pub const TARGETS: [(&str, Feed); 8] = [
    ("qmp", qmp),
    ("guest_agent", guest_agent),
    ("disk_header", disk_header),
    ("memory_file", memory_file),
    ("return_path", return_path),
    ("manifest", manifest),
    ("names", names),
    ("rest", rest),
];
