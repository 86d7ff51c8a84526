//! Ids: one type for each noun, so that none is taken for another.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
    )*};
}

ids! {
    /// A virtual machine.
    VmId
    /// A disk of a virtual machine, the same in every snapshot of it.
    DiskId
    /// A file that holds what was written to a disk between two moments.
    LayerId
    /// A snapshot.
    SnapshotId
    /// An operation.
    OperationId
    /// One act of an agent on its host.
    EffectId
    /// A domain: accounts and domains beneath it.
    DomainId
    /// An account, which has machines.
    AccountId
    /// A person, or a program.
    UserId
    /// What a user shows to be let in.
    TokenId
    /// Settings for new machines.
    ProfileId
}
