//! A host: what machines run on, and what their layers lie on.

use crate::fake::Fake;
use crate::qemu::Qemu;
use crate::{Hypervisor, Volume};

/// What an agent acts on.
pub trait Host: Send + Sync {
    /// What machines run on.
    fn hypervisor(&self) -> &dyn Hypervisor;

    /// What their layers lie on.
    fn volume(&self) -> &dyn Volume;
}

impl Host for Qemu {
    fn hypervisor(&self) -> &dyn Hypervisor {
        self
    }

    fn volume(&self) -> &dyn Volume {
        Self::volume(self)
    }
}

impl Host for Fake {
    fn hypervisor(&self) -> &dyn Hypervisor {
        self
    }

    fn volume(&self) -> &dyn Volume {
        self
    }
}
