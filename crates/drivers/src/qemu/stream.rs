//! The marks of QEMU's migration stream, version 3, in files and on sockets. Source: QEMU's
//! `migration/savevm.h` and `migration/ram.c`.

pub(super) const MAGIC: u32 = 0x5145_564d;
pub(super) const VERSION: u32 = 3;

/// Ends the stream.
pub(super) const END: u8 = 0;
pub(super) const SECTION_START: u8 = 1;
pub(super) const SECTION_PART: u8 = 2;
pub(super) const SECTION_END: u8 = 3;
pub(super) const SECTION_FULL: u8 = 4;
pub(super) const SUBSECTION: u8 = 5;
/// What the devices' states mean, for people.
pub(super) const DESCRIPTION: u8 = 6;
pub(super) const CONFIGURATION: u8 = 7;
pub(super) const COMMAND: u8 = 8;
pub(super) const FOOTER: u8 = 0x7e;

/// The size of a page.
pub(super) const PAGE: u64 = 4096;
/// In the RAM section: sizes of blocks follow.
pub(super) const MEM_SIZE: u64 = 0x04;
/// In the RAM section: so much for this time.
pub(super) const END_OF_ROUND: u64 = 0x10;
