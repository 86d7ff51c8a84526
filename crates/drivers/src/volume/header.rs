//! The beginning of a disk image from outside, read without trusting it.
//! Source: QEMU's `docs/interop/qcow2.rst`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use tintype_model::Refusal;
use tintype_model::refusal::Code;

const QCOW2: &[u8] = b"QFI\xfb";
/// Bits of the incompatible features that say what of them we know to be harmless: an image that
/// was not closed, compression other than zlib, subclusters.
const HARMLESS: u64 = 1 | 1 << 3 | 1 << 4;
/// Largest image taken, the most that qcow2 can hold with 64 KiB clusters.
const SIZE_MOST: u64 = 1 << 61;
/// Longest table that QEMU reads, in bytes (`QCOW_MAX_L1_SIZE` in its `block/qcow2.h`).
pub(super) const L1_MOST: usize = 32 << 20;

/// Formats that are told apart by how they begin, and not taken.
const FOREIGN: [(&[u8], &str); 6] = [
    (b"KDMV", "VMDK"),
    (b"# Disk DescriptorFile", "VMDK"),
    (b"<<< ", "VDI"),
    (b"conectix", "VHD"),
    (b"vhdxfile", "VHDX"),
    (b"QED\0", "QED"),
];

/// What a file begins like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A qcow2 image.
    Qcow2(Header),
    /// An image of a format that is not taken.
    Foreign(&'static str),
    /// Anything else.
    Plain,
}

/// What a qcow2 image says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Where the name of a backing file stands; 0 for none.
    pub backing_at: u64,
    /// How long that name is.
    pub backing_length: u32,
    /// Its size as a guest would see it.
    pub size_bytes: u64,
    /// 0 for none.
    pub encryption: u32,
    /// What has to be understood to read it.
    pub incompatible: u64,
    /// Snapshots inside the image.
    pub snapshots: u32,
    /// How many entries the table has that all that was written to is found by.
    pub l1_entries: u32,
    /// Where that table stands.
    pub l1_at: u64,
}

/// Reads how a file begins.
///
/// # Errors
/// When it cannot be read.
pub fn read(file: &File) -> io::Result<Kind> {
    let mut start = [0; 104];
    let mut length = 0;
    while length < start.len() {
        match file.read_at(&mut start[length..], length as u64)? {
            0 => break,
            n => length += n,
        }
    }
    Ok(parse(&start[..length]))
}

/// Decides by the first bytes of a file.
pub fn parse(start: &[u8]) -> Kind {
    if let Some((_, name)) = FOREIGN.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Kind::Foreign(name);
    }
    if !start.starts_with(QCOW2) {
        return Kind::Plain;
    }
    let u32_at = |at: usize| {
        start.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    };
    let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
    let version = u32_at(4);
    Kind::Qcow2(Header {
        version,
        backing_at: u64_at(8),
        backing_length: u32_at(16),
        size_bytes: u64_at(24),
        encryption: u32_at(32),
        snapshots: u32_at(60),
        l1_entries: u32_at(36),
        l1_at: u64_at(40),
        incompatible: if version >= 3 { u64_at(72) } else { 0 },
    })
}

impl Header {
    /// Whether nothing was ever written to the image in this file, by its table; one that is longer
    /// than QEMU reads is not looked at.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_blank(&self, file: &File) -> io::Result<bool> {
        let length = self.l1_entries as usize * size_of::<u64>();
        if length > L1_MOST {
            return Ok(false);
        }
        let mut table = vec![0; length];
        file.read_exact_at(&mut table, self.l1_at)?;
        Ok(table.iter().all(|&byte| byte == 0))
    }

    /// Refuses an image that would make QEMU read other files, or that we cannot keep.
    ///
    /// # Errors
    /// The refusal.
    pub fn refuse_strange(&self, path: &Path) -> Result<(), Refusal> {
        let name = path.display();
        let no = |code, detail: String| Err(Refusal::new(code).detail(detail));
        if self.backing_at != 0 {
            return Err(Refusal::new(Code::DiskHasBacking)
                .detail(format!("{name} has a backing file"))
                .hint("flatten it first: qemu-img convert -O qcow2 FILE NEW"));
        }
        if self.incompatible & (1 << 2) != 0 {
            return Err(Refusal::new(Code::DiskHasBacking)
                .detail(format!("{name} keeps its data in another file"))
                .hint("flatten it first: qemu-img convert -O qcow2 FILE NEW"));
        }
        if !(2..=3).contains(&self.version) {
            return no(Code::DiskNotAnImage, format!("{name} is qcow2 version {}", self.version));
        }
        if self.encryption != 0 {
            return no(Code::DiskNotAnImage, format!("{name} is encrypted"));
        }
        if self.incompatible & !HARMLESS != 0 {
            let bits = self.incompatible & !HARMLESS;
            return no(
                Code::DiskNotAnImage,
                format!("{name} is corrupt or has features {bits:#x}"),
            );
        }
        if self.snapshots != 0 {
            let count = self.snapshots;
            return no(Code::DiskNotAnImage, format!("{name} has {count} snapshots inside"));
        }
        if self.size_bytes == 0
            || self.size_bytes > SIZE_MOST
            || !self.size_bytes.is_multiple_of(512)
        {
            return no(
                Code::DiskNotAnImage,
                format!("{name} says it has {} bytes", self.size_bytes),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, parse};
    use proptest::prelude::{any, proptest};
    use std::path::Path;
    use tintype_model::refusal::Code;

    /// A qcow2 header with these fields.
    fn header(version: u32, backing: u64, size: u64, incompatible: u64) -> Vec<u8> {
        let mut bytes = vec![0; 104];
        bytes[..4].copy_from_slice(b"QFI\xfb");
        bytes[4..8].copy_from_slice(&version.to_be_bytes());
        bytes[8..16].copy_from_slice(&backing.to_be_bytes());
        bytes[24..32].copy_from_slice(&size.to_be_bytes());
        bytes[72..80].copy_from_slice(&incompatible.to_be_bytes());
        bytes
    }

    fn check(bytes: &[u8], expected: Option<Code>) {
        let Kind::Qcow2(header) = parse(bytes) else { panic!("not taken for qcow2") };
        let code = header.refuse_strange(Path::new("x")).err().map(|refusal| refusal.code);
        assert_eq!(code, expected);
    }

    #[test]
    fn a_hostile_header_is_refused() {
        check(&header(3, 0, 1 << 30, 0), None);
        check(&header(3, 0, 1 << 30, 1 << 4), None);
        check(&header(3, 4096, 1 << 30, 0), Some(Code::DiskHasBacking));
        check(&header(3, 0, 1 << 30, 1 << 2), Some(Code::DiskHasBacking));
        check(&header(3, 0, 1 << 30, 1 << 1), Some(Code::DiskNotAnImage));
        check(&header(3, 0, 1 << 30, 1 << 60), Some(Code::DiskNotAnImage));
        check(&header(9, 0, 1 << 30, 0), Some(Code::DiskNotAnImage));
        check(&header(3, 0, u64::MAX, 0), Some(Code::DiskNotAnImage));
        check(&header(3, 0, 0, 0), Some(Code::DiskNotAnImage));
        check(b"QFI\xfb", Some(Code::DiskNotAnImage));
    }

    #[test]
    fn other_formats_are_told_apart() {
        assert_eq!(parse(b"KDMV...."), Kind::Foreign("VMDK"));
        assert_eq!(parse(b"vhdxfile"), Kind::Foreign("VHDX"));
        assert_eq!(parse(b""), Kind::Plain);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            if let Kind::Qcow2(header) = parse(&bytes) {
                let _ = header.refuse_strange(Path::new("x"));
            }
        }
    }
}
