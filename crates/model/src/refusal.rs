//! Refusals: the model says that you may not, why, what stands in the way and what to do.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $text:literal $class:ident $title:literal;)*) => {
        /// What was refused or went wrong. Each has a page under `docs/errors/`.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        pub enum Code {
            $(#[doc = $title] #[serde(rename = $text)] $name,)*
        }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Code] = &[$(Code::$name),*];

            /// As it stands on the wire and in the docs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The one-line message.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// What kind of no this is.
            pub fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)* }
            }
        }
    };
}

/// The kinds of no, which decide the HTTP status and the exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// The request itself is wrong.
    Invalid,
    /// The caller is not known.
    Unauthorized,
    /// The caller or the place called from may not.
    Forbidden,
    /// There is no such thing.
    Missing,
    /// The address does not know this method.
    Method,
    /// The state of things forbids it now.
    Conflict,
    /// The request is too large.
    TooLarge,
    /// Too much was asked for in too short a time.
    TooMany,
    /// The world failed, or we did.
    Failed,
}

codes! {
    InvalidRequest "invalid-request" Invalid "the request is not understood";
    NameInvalid "name-invalid" Invalid "the name is not allowed";
    Unauthorized "unauthorized" Unauthorized "a valid token is needed";
    SignInFailed "sign-in-failed" Unauthorized "user and password do not fit";
    TooManyAttempts "too-many-attempts" TooMany "too many attempts to sign in";
    NotAllowed "not-allowed" Forbidden "you may not do this";
    SnapshotsNotAllowed "snapshots-not-allowed" Forbidden
        "users may not work with this virtual machine's snapshots";
    MemoryNotAllowed "memory-not-allowed" Forbidden
        "users may not save this virtual machine's memory";
    ForeignHost "foreign-host" Forbidden "the request names a foreign host or origin";
    BodyTooLarge "body-too-large" TooLarge "the request's body is too large";
    UnknownAddress "unknown-address" Missing "there is nothing at this address";
    MethodNotAllowed "method-not-allowed" Method "this address does not know the method";
    UnknownVm "unknown-vm" Missing "there is no such virtual machine";
    UnknownSnapshot "unknown-snapshot" Missing "there is no such snapshot";
    UnknownOperation "unknown-operation" Missing "there is no such operation";
    UnknownHost "unknown-host" Missing "there is no such host";
    UnknownHypervisor "unknown-hypervisor" Missing "there is no such kind of hypervisor";
    UnknownPool "unknown-pool" Missing "there is no such pool";
    UnknownDisk "unknown-disk" Missing "there is no such disk";
    UnknownDomain "unknown-domain" Missing "there is no such domain";
    UnknownAccount "unknown-account" Missing "there is no such account";
    UnknownUser "unknown-user" Missing "there is no such user";
    UnknownToken "unknown-token" Missing "there is no such token";
    UnknownProfile "unknown-profile" Missing "there is no such profile";
    NameAmbiguous "name-ambiguous" Conflict "several have this name";
    NameTaken "name-taken" Conflict "the name is taken";
    VmBusy "vm-busy" Conflict "another operation holds the virtual machine";
    OperationRuns "operation-runs" Conflict "the operation runs already";
    OperationEnded "operation-ended" Conflict "the operation is over";
    NotEmpty "not-empty" Conflict "something is still in it";
    StillUsed "still-used" Conflict "it is still used";
    SnapshotsDisabled "snapshots-disabled" Conflict "snapshots are switched off here";
    SnapshotLimitReached "snapshot-limit-reached" Conflict
        "the virtual machine has as many snapshots as it may have";
    QuotaReached "quota-reached" Conflict "the account's quota is reached";
    SnapshotProtected "snapshot-protected" Conflict "a snapshot is protected";
    VmHasSnapshots "vm-has-snapshots" Conflict "the virtual machine has snapshots";
    VmHasMemory "vm-has-memory-snapshots" Conflict
        "the virtual machine has snapshots with memory";
    KeyReused "key-reused" Conflict "the Idempotency-Key was used for another request";
    VmNotRunning "vm-not-running" Conflict "the virtual machine is not running";
    VmNotStopped "vm-not-stopped" Conflict "the virtual machine is not stopped";
    MemoryNeedsRunningVm "memory-needs-running-vm" Conflict
        "a snapshot with memory needs a running virtual machine";
    MemoryNotLoadable "memory-not-loadable" Conflict
        "the snapshot's memory does not load on this host";
    QuiesceWithMemory "quiesce-with-memory" Conflict
        "a snapshot with memory is not quiesced";
    FilesInDoubt "files-in-doubt" Conflict "files are not what was recorded";
    SnapshotUnavailable "snapshot-unavailable" Conflict "the snapshot is unavailable";
    PoolFull "pool-full" Conflict "the pool has too little free space";
    HostMemoryShort "host-memory-short" Conflict "the host has too little free memory";
    HostUnsuitable "host-unsuitable" Conflict "the host cannot run this virtual machine";
    DiskMissing "disk-missing" Conflict "the disk's file cannot be read";
    DiskInUse "disk-in-use" Conflict "the disk's file is in use by another process";
    DiskNotAnImage "disk-not-an-image" Conflict "the disk's file is not a disk image";
    DiskHasBacking "disk-has-backing" Conflict "the disk's file refers to other files";
    DiskHasLayers "disk-has-layers" Conflict "the disk is made of several files still";
    BootFileMissing "boot-file-missing" Conflict "the kernel or initrd cannot be read";
    ConsoleUnavailable "console-unavailable" Conflict "the console cannot be reached now";
    Interrupted "interrupted" Failed "the operation was interrupted and undone";
    HypervisorFailed "hypervisor-failed" Failed "the hypervisor reported an error";
    StorageFailed "storage-failed" Failed "the storage reported an error";
    GuestLost "guest-lost" Failed "the virtual machine's process ended";
    QuiesceFailed "quiesce-failed" Failed "the guest's filesystems could not be frozen";
    LoadFailed "load-failed" Failed "the snapshot's memory could not be loaded";
    VerifyFailed "verify-failed" Failed "the snapshot is not whole";
    Internal "internal" Failed "something went wrong inside tintype";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A coded no, with what stands in the way and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// What was refused.
    pub code: Code,
    /// What exactly, here and now.
    pub detail: String,
    /// What to do about it.
    pub hint: String,
    /// Ids of what stands in the way.
    pub blocking: Vec<Uuid>,
}

impl Refusal {
    /// A refusal that says no more than its code.
    pub fn new(code: Code) -> Self {
        Self { code, detail: String::new(), hint: String::new(), blocking: Vec::new() }
    }

    /// Says what exactly.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Says what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Names what stands in the way.
    pub fn blocked_by(mut self, ids: impl IntoIterator<Item = Uuid>) -> Self {
        self.blocking.extend(ids);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code.title())?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}
