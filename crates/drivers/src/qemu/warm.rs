//! Touches the guest's untouched memory ahead of a snapshot.
//!
//! Before it protects memory, QEMU reads a byte of every page, and it does so while the guest
//! stands still. A page that was never touched has to be made and mapped then, which takes a
//! hundred times as long as one that was. So the pages that the process has not mapped are read
//! through QEMU beforehand, a little at a time, while the guest runs.

use super::commands::Pmemsave;
use super::instance::Instance;
use super::qmp::QmpError;
use super::stream::PAGE;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

/// What is read at once: QEMU does nothing else meanwhile, so little, in bytes.
const CHUNK: u64 = 1 << 20;
/// How long QEMU is left to itself between two reads.
const BREATH: Duration = Duration::from_micros(500);
/// Set for a page that is in memory, in `/proc/PID/pagemap`.
const PRESENT: u64 = 1 << 63;

/// Reads what of `memory_bytes` of RAM, which the process has at `start`, it has not mapped. What
/// cannot be found out is left as it is: the snapshot only takes longer then.
pub(super) fn warm(
    instance: &Instance,
    start: u64,
    memory_bytes: u64,
    mut tell: impl FnMut(f64),
) -> Result<(), QmpError> {
    let Some(absent) = absent(instance.process().pid(), start, memory_bytes) else {
        return Ok(());
    };
    let total = absent.iter().map(|(from, to)| to - from).sum::<u64>().max(1);
    let mut done = 0;
    for (from, to) in absent {
        let mut at = from;
        while at < to {
            let size = CHUNK.min(to - at);
            let val = guest_address(at, memory_bytes);
            instance.qmp().run(&Pmemsave { val, size, filename: "/dev/null".to_owned() })?;
            at += size;
            done += size;
            tell(done as f64 / total as f64);
            thread::sleep(BREATH);
        }
    }
    Ok(())
}

/// Where the guest sees an offset of its RAM: a q35 machine with more than fits below the hole
/// for devices has the rest at 4 GiB.
fn guest_address(offset: u64, memory_bytes: u64) -> u64 {
    const ALL_LOW: u64 = 0xb000_0000;
    const LOW: u64 = 0x8000_0000;
    if memory_bytes < ALL_LOW || offset < LOW { offset } else { offset - LOW + (4 << 30) }
}

/// The runs of RAM that the process has not mapped, as offsets.
fn absent(pid: i32, start: u64, memory_bytes: u64) -> Option<Vec<(u64, u64)>> {
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).ok()?;
    let mut entries = vec![0; (memory_bytes / PAGE * 8) as usize];
    pagemap.read_exact_at(&mut entries, start / PAGE * 8).ok()?;
    let present = entries
        .chunks_exact(8)
        .map(|entry| u64::from_le_bytes(entry.try_into().expect("8 bytes")) & PRESENT != 0);
    Some(runs(present))
}

/// The runs of pages that are not present, as byte offsets.
fn runs(present: impl Iterator<Item = bool>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (page, _) in present.enumerate().filter(|(_, present)| !present) {
        let at = page as u64 * PAGE;
        match runs.last_mut() {
            Some((_, to)) if *to == at => *to += PAGE,
            _ => runs.push((at, at + PAGE)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::{guest_address, runs};

    #[test]
    fn absent_pages_make_runs() {
        let present = [true, false, false, true, false];
        assert_eq!(runs(present.into_iter()), [(0x1000, 0x3000), (0x4000, 0x5000)]);
    }

    #[test]
    fn memory_behind_the_hole_is_at_four_gibibytes() {
        assert_eq!(guest_address(0x9000_0000, 0xa000_0000), 0x9000_0000);
        assert_eq!(guest_address(0x9000_0000, 0x1_0000_0000), 0x1_1000_0000);
    }
}
