//! A host: what machines run on, what their layers lie on, and what memory there is.

use crate::fake::Fake;
use crate::qemu::Qemu;
use crate::{Hypervisor, Premises, Volume};
use std::fs;
use std::sync::Arc;

/// What an agent acts on.
pub trait Host: Send + Sync {
    /// What machines run on.
    fn hypervisor(&self) -> &dyn Hypervisor;

    /// What their layers lie on.
    fn volume(&self) -> &dyn Volume;

    /// What there is of them.
    fn premises(&self) -> &dyn Premises;
}

impl Host for Qemu {
    fn hypervisor(&self) -> &dyn Hypervisor {
        self
    }

    fn volume(&self) -> &dyn Volume {
        Self::volume(self)
    }

    fn premises(&self) -> &dyn Premises {
        self
    }
}

impl Host for Fake {
    fn hypervisor(&self) -> &dyn Hypervisor {
        self
    }

    fn volume(&self) -> &dyn Volume {
        self
    }

    fn premises(&self) -> &dyn Premises {
        self
    }
}

impl<H: Host> Host for Arc<H> {
    fn hypervisor(&self) -> &dyn Hypervisor {
        (**self).hypervisor()
    }

    fn volume(&self) -> &dyn Volume {
        (**self).volume()
    }

    fn premises(&self) -> &dyn Premises {
        (**self).premises()
    }
}

/// What memory can be had without taking it from a process, and all there is, in bytes.
///
/// Source: Linux's `proc_meminfo(5)`, which counts in KiB.
pub fn memory() -> (u64, u64) {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let [available, all] = ["MemAvailable:", "MemTotal:"].map(|name| figure(&meminfo, name) << 10);
    (available, all)
}

/// The number that a text of the kernel's tells under a name; 0 if it does not.
pub(crate) fn figure(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().map(str::split_whitespace);
    let words = lines.find_map(|mut words| (words.next()? == name).then_some(words));
    words.and_then(|mut words| words.next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{figure, memory};

    #[test]
    fn a_figure_is_found_by_its_whole_name() {
        let meminfo = "MemAvailableElse: 3 kB\nMemAvailable:     7 kB\nMemTotal: many kB\n";
        assert_eq!(figure(meminfo, "MemAvailable:"), 7);
        assert_eq!(figure(meminfo, "MemTotal:"), 0);
        assert_eq!(figure("", "MemTotal:"), 0);
        let (available, all) = memory();
        assert!(0 < available && available <= all);
    }
}
