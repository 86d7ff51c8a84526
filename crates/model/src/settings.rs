//! What may be done with the snapshots of one virtual machine, and how many it may have (C19–C25,
//! R2, R13).

use serde::{Deserialize, Serialize};

/// The settings of a virtual machine; a profile holds them for new ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Whether users may work with its snapshots (C19). Binds the role `user` only (R13).
    pub snapshots_allowed: bool,
    /// Whether users may save its memory (C21). Binds the role `user` only.
    pub memory_allowed: bool,
    /// How many snapshots it may have (C20).
    pub snapshot_limit: Limit,
    /// Whether it cannot be deleted while it has snapshots (R1).
    pub protect_snapshots: bool,
    /// How long its guest may stand still so that its memory is of the moment that was asked for,
    /// in milliseconds; beyond it is of a later moment.
    #[serde(default = "pause_bound")]
    pub pause_bound: Limit,
}

/// The bound of machines for which none is recorded.
fn pause_bound() -> Limit {
    Limit::Most(100)
}

impl Default for Settings {
    /// Three snapshots and no memory, as VMmanager has it (C20, C21); users are allowed.
    fn default() -> Self {
        Self {
            snapshots_allowed: true,
            memory_allowed: false,
            snapshot_limit: Limit::Most(3),
            protect_snapshots: false,
            pause_bound: pause_bound(),
        }
    }
}

/// A number that something must not pass, or none (A37).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// As many as there is room for.
    Unlimited,
    /// So many at most.
    Most(u64),
}

impl Limit {
    /// The stricter of two (R2).
    pub fn stricter(self, other: Self) -> Self {
        match (self, other) {
            (Self::Most(a), Self::Most(b)) => Self::Most(a.min(b)),
            (Self::Unlimited, limit) | (limit, Self::Unlimited) => limit,
        }
    }

    /// Whether `n` is more than it allows.
    pub fn is_passed_by(self, n: u64) -> bool {
        match self {
            Self::Unlimited => false,
            Self::Most(most) => n > most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Limit;

    /// R2, A37, A38: the hypervisor's cap holds even for a machine without a limit of its own.
    #[test]
    fn the_effective_limit_is_the_stricter_one() {
        use Limit::{Most, Unlimited};
        assert_eq!(Unlimited.stricter(Most(50)), Most(50));
        assert_eq!(Most(3).stricter(Unlimited), Most(3));
        assert_eq!(Most(70).stricter(Most(50)), Most(50));
        assert_eq!(Unlimited.stricter(Unlimited), Unlimited);
        assert!(Most(3).is_passed_by(4) && !Most(3).is_passed_by(3));
        assert!(!Unlimited.is_passed_by(u64::MAX));
    }
}
