//! The file that memory is saved in, and what QEMU says while it is served.

use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::Write;
use tintype_drivers::qemu::mapped_ram::Layout;
use tintype_drivers::qemu::{Said, understand};

/// What is read of a file lies in it, and nothing lies on something else.
pub fn memory_file(bytes: &[u8]) {
    let Ok(file) = memfd_create("memory", MemfdFlags::CLOEXEC) else { return };
    let mut file = File::from(file);
    if file.write_all(bytes).is_err() {
        return;
    }
    let Ok(layout) = Layout::read(&file) else { return };
    let length = bytes.len() as u64;
    let mut at = 0;
    for block in &layout.blocks {
        assert!(at <= block.bitmap_at && block.bitmap_at <= block.pages_at);
        at = block.pages_at + block.length;
        assert!(at <= length);
    }
    assert!(at <= layout.devices_at && layout.devices_at <= length);
    if let Ok(devices) = layout.devices(&file) {
        assert!(devices.len() as u64 <= length - layout.devices_at);
    }
    let _ = layout.fits("pc-q35-10.0", 4096);
    if layout.fill_bitmaps(&file).is_ok() {
        assert_eq!(Layout::read(&file).expect("as it was"), layout, "only bitmaps are written");
    }
}

/// Each message is understood as soon as it is whole and not before, however it comes in pieces.
pub fn return_path(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((said, length))) = understand(rest) {
        assert!((4..=rest.len()).contains(&length));
        assert!(matches!(understand(&rest[..length - 1]), Ok(None)), "half of it");
        if let Said::Wanted { length, .. } = said {
            assert!(length <= u64::from(u32::MAX));
        }
        rest = &rest[length..];
    }
}
