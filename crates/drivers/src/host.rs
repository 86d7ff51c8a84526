//! A host: what machines run on, and what their layers lie on.

use crate::fake::Fake;
use crate::qemu::Qemu;
use crate::{Hypervisor, Premises, Volume};
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
