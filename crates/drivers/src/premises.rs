//! What there is of machines on a host, looked at and put in order beside effects.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use tintype_model::VmId;
use tintype_model::finding::Mark;

/// The folders of machines on a host, and the processes that have their files open.
pub trait Premises: Send + Sync {
    /// The machines that have a folder.
    fn machines(&self) -> Vec<VmId>;

    /// The files in a machine's folder, but for those that are the hypervisor's own. What is in
    /// `settle` is on disk when it is told of, with when it was written.
    ///
    /// # Errors
    /// When storage fails; so for all of these.
    fn files(&self, vm: VmId, settle: &BTreeSet<String>) -> io::Result<BTreeMap<String, Mark>>;

    /// The files that layers say they lie on.
    fn lies_on(&self, vm: VmId) -> io::Result<BTreeMap<String, String>>;

    /// What a machine's guest has open.
    fn open_files(&self, vm: VmId) -> OpenFiles;

    /// The processes that are ours to have files of machines open.
    fn processes(&self) -> BTreeSet<i32>;

    /// How a guest is held that goes on when we are asked to let it, if it is.
    fn held(&self, vm: VmId) -> Option<String>;

    /// Lets a guest go on that somebody holds.
    fn resume(&self, vm: VmId) -> io::Result<()>;

    /// Moves a file of a machine to where nobody looks for it; says where it is then.
    fn set_aside(&self, vm: VmId, file: &str) -> io::Result<String>;

    /// Moves all of a machine that nobody knows away as well; says where it is then.
    fn set_aside_machine(&self, vm: VmId) -> io::Result<String>;

    /// Writes the manifest of a machine, in one step, on disk when this ends.
    fn describe(&self, vm: VmId, manifest: &str) -> io::Result<()>;

    /// The manifest of a machine, if it has one.
    fn manifest(&self, vm: VmId) -> Option<String>;
}

/// What a guest's process has open of its machine's folder.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OpenFiles {
    /// The files that it writes to.
    pub written: BTreeSet<String>,
    /// Those in whose place there is another one now, or none.
    pub replaced: BTreeSet<String>,
}
