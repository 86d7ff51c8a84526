//! The beginning of a disk image.

use std::path::Path;
use tintype_drivers::volume::header::{Kind, parse};

/// An image that is taken names no other file, and has a size that can be kept.
pub fn disk_header(bytes: &[u8]) {
    let Kind::Qcow2(header) = parse(bytes) else { return };
    if header.refuse_strange(Path::new("disk.qcow2")).is_err() {
        return;
    }
    assert_eq!(&bytes[..4], b"QFI\xfb");
    // The name of a backing file, and the bit that says its data are elsewhere.
    assert!(bytes[8..16].iter().all(|&byte| byte == 0));
    assert!(header.version == 2 || bytes.get(79).is_none_or(|byte| byte & 0b100 == 0));
    assert!(header.size_bytes > 0 && header.size_bytes.is_multiple_of(512));
}
