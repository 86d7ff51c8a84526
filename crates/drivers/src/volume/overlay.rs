//! A qcow2 image over another, in which nothing was written yet. Written here because a machine
//! waits for it whenever it is taken back: `qemu-img` takes longer to start than to do this.
//! Source: QEMU's `docs/interop/qcow2.rst`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use tintype_model::layer::LayerFile;

/// Clusters of 128 KiB, as [`LAYOUT`](super::qcow2) has them.
const CLUSTER_BITS: u32 = 17;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// How much of a disk an entry of the first table stands for: a cluster of entries of 16 bytes,
/// each for a cluster.
const PER_ENTRY: u64 = CLUSTER / 16 * CLUSTER;
/// The most entries that QEMU reads.
const ENTRIES_MOST: u64 = (super::header::L1_MOST / size_of::<u64>()) as u64;

/// The clusters that say where the counts of uses are, that have the counts, and where the first
/// table of what is written begins.
const COUNTS_TABLE: u64 = 1;
const COUNTS: u64 = 2;
const ENTRIES: u64 = 3;

/// Incompatible feature: clusters have subclusters, which makes copy-on-write as small as a page.
const SUBCLUSTERS: u64 = 1 << 4;
/// A use is counted in two to the power of this many bits.
const COUNT_ORDER: u32 = 4;
/// Header extension: the format of what lies beneath.
const BACKING_FORMAT: u32 = 0xE279_2ACA;
const HEADER_LENGTH: u32 = 112;

/// Writes an image of `size_bytes` over `beneath`, which lies in the same folder, to a new file.
///
/// # Errors
/// When it cannot be written, or QEMU does not read any so large.
pub(super) fn write(file: &File, size_bytes: u64, beneath: LayerFile) -> io::Result<()> {
    let entries = size_bytes.div_ceil(PER_ENTRY);
    if entries > ENTRIES_MOST {
        return Err(io::Error::other(format!("{size_bytes} bytes are more than qcow2 can hold")));
    }
    let clusters = ENTRIES + (entries * size_of::<u64>() as u64).div_ceil(CLUSTER);
    file.set_len(clusters * CLUSTER)?;
    let counts: Vec<u8> = (0..clusters).flat_map(|_| 1_u16.to_be_bytes()).collect();
    file.write_all_at(&counts, COUNTS * CLUSTER)?;
    file.write_all_at(&(COUNTS * CLUSTER).to_be_bytes(), COUNTS_TABLE * CLUSTER)?;
    file.write_all_at(&header(size_bytes, entries, beneath), 0)
}

fn header(size_bytes: u64, entries: u64, beneath: LayerFile) -> Vec<u8> {
    let (name, format) = (beneath.name(), beneath.format.as_str());
    let padded = format.len().next_multiple_of(8);
    // After the extensions, the last of which is empty.
    let name_at = u64::from(HEADER_LENGTH) + 8 + padded as u64 + 8;
    let mut header = b"QFI\xfb".to_vec();
    let mut u32s = |values: &[u32]| values.iter().for_each(|v| header.extend(v.to_be_bytes()));
    let (high, low) = (|value: u64| (value >> 32) as u32, |value: u64| value as u32);
    let u64s = |value| [high(value), low(value)];
    u32s(&[3]);
    u32s(&u64s(name_at));
    u32s(&[name.len() as u32, CLUSTER_BITS]);
    u32s(&u64s(size_bytes));
    // No encryption.
    u32s(&[0, entries as u32]);
    u32s(&u64s(ENTRIES * CLUSTER));
    u32s(&u64s(COUNTS_TABLE * CLUSTER));
    // One cluster of counts' places; no snapshots inside, nowhere.
    u32s(&[1, 0, 0, 0]);
    u32s(&u64s(SUBCLUSTERS));
    // No compatible features, and none that who does not know them has to clear.
    u32s(&[0, 0, 0, 0, COUNT_ORDER, HEADER_LENGTH]);
    // Compression, which nothing here has, and padding.
    u32s(&[0, 0]);
    u32s(&[BACKING_FORMAT, format.len() as u32]);
    header.extend(format.bytes());
    header.resize(name_at as usize, 0);
    header.extend(name.bytes());
    header
}
